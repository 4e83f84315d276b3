"""A disk of a few MiB that can be filled and emptied; only the superuser can mount one."""

import os
import subprocess
from contextlib import contextmanager, suppress

FILLER = ".filler"


class NoSmallDisk(Exception):
    """No small disk can be mounted here."""


@contextmanager
def small_disk(folder, kib):
    """Mount a tmpfs of ``kib`` KiB at a folder, which is created; unmount it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={kib}k,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        raise NoSmallDisk("only the superuser can mount a small disk, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk, left_bytes=0):
    """Leave so many bytes free on a disk, rounded up to pages; a fuller one stays as it is."""
    status = os.statvfs(disk)
    free = status.f_bavail * status.f_frsize
    with (disk / FILLER).open("ab", 0) as handle, suppress(OSError):
        while free > left_bytes:
            handle.write(bytes(4096))
            free -= 4096


def empty(disk):
    """Free what :func:`fill` took."""
    (disk / FILLER).unlink(missing_ok=True)
