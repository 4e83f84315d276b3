"""Checks of an output path before the work that fills it, which may take hours."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import DRAFT, cannot_write, owner_note, refusal_words

PROBE_BYTES = 1 << 16


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
