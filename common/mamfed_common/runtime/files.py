"""Writing files so that a kill leaves the old one or the new one, readable by their owner only.

What the superuser writes into somebody's folder is given to who owns the folder: a certificate
renewed under ``sudo`` must not shut the service out that reads it.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from mamfed_common.errors import OutputError
from mamfed_common.runtime.places import user_name

DRAFT = ".draft"
"""How the names of unfinished files end."""
PROBE_BYTES = 1 << 16


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


def check_folder_of(path: Path) -> None:
    """Refuse a file to be written before the work for it, which may take hours.

    Raises:
        OutputError: It is a folder, or its folder does not exist or cannot be written.
    """
    if os.path.isdir(path):  # unlike Path's, it takes a name that is too long
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path}: its folder does not exist; make it, or choose another one")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"{path}: its folder cannot be written{owner_note(path.parent)}; choose another one"
        )


def check_file(path: Path, is_ours: Callable[[bytes], bool], what: str) -> None:
    """Refuse to replace a file that somebody else has written, before the work.

    Args:
        path: What is to be written; an empty file there, as ``mktemp`` makes it, is free.
        is_ours: Tells from its first bytes whether mamfed wrote it for the same purpose.
        what: What we write, for the error.

    Raises:
        OutputError: It is such a file, or :func:`check_folder_of` refuses it.
    """
    check_folder_of(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    if head and not is_ours(head):
        raise OutputError(f"{path}: is there, and no {what}; choose another name")


def check_folder(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to write into a folder that somebody else has filled, before the work.

    Args:
        path: Where a folder is to be made; an empty one is free.
        is_ours: Tells whether mamfed has made it, by the mark that it left.
        what: What we make, for the error.

    Raises:
        OutputError: It is a file, cannot be looked into, or holds anything else.
    """
    try:
        with os.scandir(path) as entries:
            is_free = not any(entries)
    except FileNotFoundError:
        is_free = True
    except NotADirectoryError:
        raise OutputError(f"{path}: is no folder; name a new one") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    check_writable(path)
    if not is_free and not is_ours(path):
        raise OutputError(f"{path}: holds other files, and no {what}; choose a new folder")


def check_writable(folder: Path) -> None:
    """Refuse a folder that may not be written, or be made where there is none.

    Raises:
        OutputError: It may not.
    """
    nearest = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not os.path.isdir(nearest):
        raise OutputError(f"{folder}: cannot be made: {nearest} is no folder; choose another place")
    if not os.access(nearest, os.W_OK):
        code = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
        raise cannot_write(folder, PermissionError(code, os.strerror(code)))


HEAD_BYTES = 4096
PAGE_MARK = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What every HTML page of mamfed has had in its head, in all versions."""


def is_page(head: bytes) -> bool:
    """Tell whether a file is an HTML page of mamfed's, by its first bytes."""
    return PAGE_MARK in head


def check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder on a disk that is full, before the work whose results go there.

    A file system that tells no size, as some shares do, is taken at its word; quotas show only
    where something is written, so a little is.

    Raises:
        OutputError: There is less room, or nothing can be written there.
    """
    try:
        found = shutil.disk_usage(folder)
        with NamedTemporaryFile(dir=folder, prefix=".room.", suffix=DRAFT) as handle:
            handle.write(bytes(PROBE_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise OutputError(f"{folder}: {refusal_words(error)}") from None
    if found.total and found.free < needed_bytes:
        raise OutputError(
            f"{folder}: its disk has {found.free / 1e6:,.1f} MB left, {needed_bytes / 1e6:,.1f} MB "
            "are needed; free some, or choose another folder"
        )


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
