"""Private files, written atomically, and error messages of the file system.

A crash leaves either the old file or the new one. Files that root writes are given to the owner of
their folder: a certificate renewed with ``sudo`` must stay readable for the service.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile

from mamfed_common.errors import OutputError
from mamfed_common.runtime.places import user_name

DRAFT = ".draft"
"""Suffix of unfinished files."""
_creating = threading.RLock()
"""A folder that another thread sees has its owner: what is created in it goes to the same one."""


class OpenFolderError(OSError):
    """Every user of the machine may replace what is kept in a folder."""


def check_not_open(folder: Path) -> None:
    """Refuse an existing folder in which every user may replace files.

    A sticky folder such as ``/tmp`` passes: only their owner may replace files in it. So does a
    file system without permissions (FAT, some Windows and CIFS mounts): its 0777 says nothing, and
    nobody could change it.

    Raises:
        OpenFolderError: It is such a folder.
        OSError: It does not exist.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and _keeps_modes(folder):
        raise OpenFolderError(
            errno.EPERM,
            f"every user may write to {folder} (mode {mode:04o}), so anyone could replace what is "
            f"kept there; run chmod o-w {folder}, or choose another folder",
            str(folder),
        )


def _keeps_modes(folder: Path) -> bool:
    """Return whether a private file in a folder is private: a file system may know no modes."""
    try:
        with TemporaryFile(dir=folder) as probe:
            return not stat.S_IMODE(os.fstat(probe.fileno()).st_mode) & stat.S_IRWXO
    except OSError:  # read-only or full
        return True


def private_directory(path: Path) -> Path:
    """Create a directory that only its owner may enter (0700), with its parents; return it.

    A directory that exists is left as it is.

    Raises:
        OpenFolderError: It exists, or its parent does, and every user may replace files there.
        OSError: It cannot be created.
    """
    with _creating:
        if path.is_dir():
            check_not_open(path)
            return path
        if path.parent.exists():
            check_not_open(path.parent)
        else:  # pathlib would apply the umask to them
            private_directory(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
        give_to_owner(path, path.parent)
        return path


def give_to_owner(created: Path | int, folder: Path) -> None:
    """If run by root, give a new path or descriptor to the owner of its folder."""
    if os.geteuid():
        return
    owner = folder.stat()
    if owner.st_uid:
        os.chown(created, owner.st_uid, owner.st_gid)


def give_all_to_owner(created: Path, folder: Path) -> None:
    """If run by root, give a new folder and its contents to the owner of another folder."""
    for path in (created, *created.rglob("*")):
        give_to_owner(path, folder)


def owner_note(path: Path) -> str:
    """Return a note on the owner of a path, or of its nearest existing parent; empty if ours."""
    nearest = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    owner = nearest.lstat().st_uid
    if owner == os.geteuid():
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"user {owner}"
    return f"; {nearest} belongs to {name}: run this as {name}, you are {user_name()}"


def reason(path: Path, error: Exception) -> str:
    """Return why an access failed, with the path's owner if permission was denied.

    For errors other than OSError, such as NotTextError, this is their own message.
    """
    if not isinstance(error, OSError):
        return str(error)
    note = owner_note(path) if isinstance(error, PermissionError) else ""
    return f"{refusal_words(error)}{note}"


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the OutputError for a path that cannot be written, with reason and owner."""
    return OutputError(f"{path}: cannot be written: {reason(path, error)}")


ADVICE = {
    errno.ENOSPC: "free some, or choose another folder",
    errno.EDQUOT: "your quota on this disk is used up; have it raised, or choose another folder",
    errno.EEXIST: "a folder was expected; choose another folder",
    errno.ENOTDIR: "a folder was expected; choose another folder",
    errno.EROFS: "it is mounted read-only; choose another folder",
    errno.ESTALE: "its network share was removed or the file server restarted; mount it again",
    errno.EIO: "the disk or network share fails; see the system's log",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""Advice for errors of the file system; ownership is covered by :func:`owner_note`."""


PASSING = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN),
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE),
    }
)
"""Errors of the machine that may pass by themselves: out of descriptors, memory or space, or a disk
or network share that fails for a while."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether an error may pass by itself, so that it is worth to try again later."""
    return isinstance(error, OSError) and error.errno in PASSING


def refusal_words(error: OSError) -> str:
    """Return the system's error message, with advice if there is any."""
    words = str(error.strerror or error)
    advice = ADVICE.get(error.errno or 0)
    return f"{words}; {advice}" if advice else words


def os_error_line(error: OSError) -> str:
    """Return an error of the file system in one line, with its path and, if not ours, its owner."""
    if not error.filename:
        return refusal_words(error)
    path = Path(os.fsdecode(error.filename))
    return f"{path}: {reason(path, error)}"


def write_atomic(path: Path, content: bytes | str, *, replace: bool = True) -> None:
    """Write a file (0600) under a temporary name, then rename it.

    Args:
        path: The file to write or replace.
        content: Its bytes, or text to be written as UTF-8.
        replace: Whether to replace an existing file.

    Raises:
        FileExistsError: The file exists and ``replace`` is False.
        OpenFolderError: Every user may replace files in its folder.
        OSError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    check_not_open(path.parent)
    handle = NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT, delete=False
    )
    try:
        with name_in_errors(path), handle:
            give_to_owner(handle.fileno(), path.parent)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
            _move(handle.name, path, replace=replace)
    except BaseException:
        Path(handle.name).unlink(missing_ok=True)
        raise


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Add a file name to OSErrors without one, as raised for a descriptor on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _move(draft: str, path: Path, *, replace: bool) -> None:
    if replace:
        os.replace(draft, path)
        return
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(draft, path)
    else:
        os.unlink(draft)


def sync_folder(path: Path) -> None:
    """Flush renames in a folder to disk, if the file system supports that.

    Network shares (SMB, some FUSE) do not support fsync of a folder and return EINVAL.
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
    """Remove unfinished files that crashes left in a folder and its subfolders."""
    for draft in folder.rglob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)
