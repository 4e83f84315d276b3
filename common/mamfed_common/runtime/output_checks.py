"""Checks of an output path before the work that fills it, which may take hours."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import open_regular
from mamfed_common.runtime.files import (
    DRAFT,
    cannot_write,
    check_not_open,
    owner_note,
    refusal_words,
)

PROBE_BYTES = 1 << 16


def check_folder_of(path: Path) -> None:
    """Refuse an output file whose folder is missing or cannot be written.

    Raises:
        OutputError: It is a folder, or its folder does not exist or cannot be written,
            or every user may replace files in it.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, accepts a name that is too long
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path}: its folder does not exist; create it, or choose another one")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"{path}: its folder cannot be written{owner_note(path.parent)}; choose another one"
        )
    _refuse_open(path, path.parent)


def _refuse_open(path: Path, folder: Path) -> None:
    try:
        check_not_open(folder)
    except OSError as error:
        raise cannot_write(path, error) from None


def check_file(path: Path, is_ours: Callable[[bytes], bool], what: str) -> None:
    """Refuse to replace a file that mamfed did not write.

    Args:
        path: The output file; an empty file, as from ``mktemp``, may be replaced.
        is_ours: Returns, given its first bytes, whether mamfed wrote it for the same purpose.
        what: Name of the output, for the error.

    Raises:
        OutputError: Another file exists, or :func:`check_folder_of` refuses the path.
    """
    check_folder_of(path)
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    if head and not is_ours(head):
        raise OutputError(f"{path}: exists and is not a {what}; choose another name")


def check_folder(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to write into a folder with other files.

    Args:
        path: The output folder; an empty folder may be used.
        is_ours: Returns whether mamfed wrote the folder, by a mark in it.
        what: Name of the output, for the error.

    Raises:
        OutputError: It is a file, cannot be read, or holds other files.
    """
    try:
        with os.scandir(path) as entries:
            is_free = not any(entries)
    except FileNotFoundError:
        is_free = True
    except NotADirectoryError:
        raise OutputError(f"{path}: is not a folder; choose a new folder") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    check_writable(path)
    if not is_free and not is_ours(path):
        raise OutputError(f"{path}: holds other files and no {what}; choose a new folder")


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written or created.

    Raises:
        OutputError: It cannot.
    """
    nearest = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not os.path.isdir(nearest):
        raise OutputError(
            f"{folder}: cannot be created: {nearest} is not a folder; choose another place"
        )
    if not os.access(nearest, os.W_OK):
        code = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
        raise cannot_write(folder, PermissionError(code, os.strerror(code)))
    _refuse_open(folder, Path(nearest))


HEAD_BYTES = 4096


PAGE_MARK = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Part of the head of every HTML page of mamfed, in all versions."""


def is_page(head: bytes) -> bool:
    """Return whether a file is an HTML page of mamfed, given its first bytes."""
    return PAGE_MARK in head


def check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder on a disk without enough space.

    A small file is written as well, because quotas show only then. A file system that reports no
    size, as some network shares do, passes.

    Raises:
        OutputError: There is too little space, or the folder cannot be written.
    """
    try:
        usage = shutil.disk_usage(folder)
        with NamedTemporaryFile(dir=folder, prefix=".room.", suffix=DRAFT) as handle:
            handle.write(bytes(PROBE_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise OutputError(f"{folder}: {refusal_words(error)}") from None
    if usage.total and usage.free < needed_bytes:
        raise OutputError(
            f"{folder}: its disk has {usage.free / 1e6:,.1f} MB left, {needed_bytes / 1e6:,.1f} MB "
            "are needed; free some, or choose another folder"
        )


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or lies in it, with symbolic links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def check_outside(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output within an input folder, where the next run would read it.

    Raises:
        OutputError: ``out`` is one of the inputs or lies in one.
    """
    for folder in inputs:
        if is_below(out, folder):
            raise OutputError(
                f"{out}: lies in the input folder {folder}; choose a place outside of it"
            )
