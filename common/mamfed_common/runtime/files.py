"""Writing files so that a kill leaves the old one or the new one, readable by their owner only.

What the superuser writes into somebody's folder is given to who owns the folder: a certificate
renewed under ``sudo`` must not shut the service out that reads it.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from mamfed_common.errors import OutputError
from mamfed_common.runtime.places import user_name

DRAFT = ".draft"
"""How the names of unfinished files end."""


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


def give_all_to_owner(made: Path, folder: Path) -> None:
    """Give a folder that libraries have filled, and all in it, to who owns another folder."""
    for path in (made, *made.rglob("*")):
        give_to_owner(path, folder)


def owner_note(path: Path) -> str:
    """Say whose a path is, or what there is of it, where it is another user's; else nothing."""
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
    """Say what the system answered, and whose the path is where only they may do it.

    Any other error, such as of a text that is none, has words of its own.
    """
    if not isinstance(error, OSError):
        return str(error)
    why = owner_note(path) if isinstance(error, PermissionError) else ""
    return f"{refusal_words(error)}{why}"


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error for what the system does not let us write: why, and whose it is."""
    return OutputError(f"{path}: cannot be written: {reason(path, error)}")


ADVICE = {
    errno.ENOSPC: "free some, or choose another folder",
    errno.EDQUOT: "your share of this disk is used up; have it raised, or choose another folder",
    errno.EROFS: "it is mounted for reading only; choose another folder",
    errno.ESTALE: "the share behind it was taken away or its server started anew; mount it again",
    errno.EIO: "the disk or the share behind it fails; look at the system's log",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do about what a file system refuses, beside whose folder it is."""


def refusal_words(error: OSError) -> str:
    """Say what the system refused and what to do about it."""
    words = str(error.strerror or error)
    advice = ADVICE.get(error.errno or 0)
    return f"{words}; {advice}" if advice else words


def os_error_line(error: OSError) -> str:
    """Say in one line what the system refused, and where; whose it is, if it is another user's."""
    if not error.filename:
        return refusal_words(error)
    path = Path(os.fsdecode(error.filename))
    return f"{path}: {reason(path, error)}"


def write_atomic(path: Path, content: bytes | str, *, replace: bool = True) -> None:
    """Write a whole file (0600) next to its final place, then move it there.

    Args:
        path: The file to write or replace.
        content: Its bytes, or text to be written as UTF-8.
        replace: Whether a file that is there by then is replaced.

    Raises:
        FileExistsError: It is there, and not to be replaced.
        OSError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
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
    """Put a file's name into errors that have none: a full disk is told of a descriptor."""
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
