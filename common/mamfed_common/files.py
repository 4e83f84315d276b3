"""Writing files so that a kill leaves the old one or the new one, readable by their owner only.

What the superuser writes into somebody's folder is given to who owns the folder: a certificate
renewed under ``sudo`` must not shut the service out that reads it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from mamfed_common.errors import OutputError


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner may enter (0700), missing parents too; return it."""
    if not path.parent.exists():  # pathlib would leave them to the umask
        private_directory(path.parent)
    if not path.is_dir():
        path.mkdir(exist_ok=True, mode=0o700)
        give_to_owner(path, path.parent)
    return path


def give_to_owner(made: Path | int, folder: Path) -> None:
    """Give what the superuser has just made, a path or a descriptor, to who owns its folder."""
    if os.geteuid():
        return
    owner = folder.stat()
    if owner.st_uid:
        os.chown(made, owner.st_uid, owner.st_gid)


def check_folder_of(path: Path) -> None:
    """Refuse a file to be written before the work for it, which may take hours.

    Raises:
        OutputError: Its folder does not exist or cannot be written.
    """
    if not os.path.isdir(path.parent):  # unlike Path's, it takes a name that is too long
        raise OutputError(f"{path}: its folder does not exist; make it, or choose another one")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: its folder cannot be written; choose another one")


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies in it, wherever links on the way lead."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def check_outside(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write below a folder that is read: the next reading would find our own files.

    Raises:
        OutputError: ``out`` is one of the inputs or lies in it.
    """
    for folder in inputs:
        if is_below(out, folder):
            raise OutputError(f"{out}: lies in {folder}, which is read; choose a place outside")


DRAFT = ".draft"
"""How the names of unfinished files end."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file (0600) next to its final place, then move it there.

    Args:
        path: The file to write or replace.
        content: Its bytes, or text to be written as UTF-8.
    """
    data = content.encode() if isinstance(content, str) else content
    with NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT, delete=False
    ) as handle:
        try:
            give_to_owner(handle.fileno(), path.parent)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
            os.replace(handle.name, path)
        except BaseException:
            Path(handle.name).unlink(missing_ok=True)
            raise


def sync_folder(path: Path) -> None:
    """Bring renamed files to disk under their new names, where the file system can do that.

    Shares (SMB, some FUSE) know no fsync of a folder and say EINVAL: their server decides.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def remove_drafts(folder: Path) -> None:
    """Remove what kills have left of :func:`write_atomic` in a folder and below it."""
    for draft in folder.rglob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)
