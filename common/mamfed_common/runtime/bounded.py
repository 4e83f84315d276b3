"""Read files that another party may have made: regular files only, up to a stated size.

A named pipe would wait for ever, ``/dev/zero`` would fill the memory. Every document, table, key
and state file is read here, or by a library that maps it into memory.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

IMAGE_BYTES = 512 << 20
"""Maximum size of an image file: the largest mammogram has 53 MB of pixels, a tomosynthesis stack
more."""
KEY_BYTES = 1 << 16
"""Maximum size of a key or a certificate, which have up to a few kB."""
DOCUMENT_BYTES = 1 << 20
"""Maximum size of settings, plans, requests and welcomes, which have a few kB."""
TABLE_BYTES = 64 << 20
"""Maximum size of a table."""
STATE_BYTES = 512 << 20
"""Maximum size of what mamfed itself keeps about a data set or a run: its lines grow with it."""
CHECKPOINT_BYTES = 4 << 30
"""Maximum size of a safetensors file: a thousand million float32 weights."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class UnfitFileError(OSError):
    """A path is not a regular file, or the file is larger than any of its kind."""


def open_regular(path: Path, limit: int | None = None) -> BufferedReader:
    """Open a regular file for reading, without waiting for a pipe's writer.

    Args:
        path: The file.
        limit: Maximum size in bytes; None means no limit.

    Raises:
        UnfitFileError: It is a pipe, a device or a socket, or too large.
        OSError: It cannot be opened, or is a folder.
    """
    _check(path, os.stat(path), limit)  # before: opening a device can have an effect
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor), limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole regular file of at most ``limit`` bytes.

    Raises:
        UnfitFileError: It is a pipe, a device or a socket, or too large.
        OSError: It cannot be read, or is a folder.
    """
    with open_regular(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # it grows, or is one of /proc, whose size says nothing
        raise _too_large(path, limit)
    return data


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_values(path: Path, limit: int) -> Any:
    """Read the values in a JSON file of at most ``limit`` bytes.

    Raises:
        UnfitFileError: As :func:`read_bytes`.
        OSError: It cannot be read, or is a folder.
        ValueError: It is not JSON, or nested too deeply.
    """
    return parse_json(read_bytes(path, limit))


def _check(path: Path, found: os.stat_result, limit: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise UnfitFileError(errno.EINVAL, f"is {kind}, expected a regular file", str(path))
    if limit is not None and found.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: Path, limit: int) -> UnfitFileError:
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
    text = f"larger than {size}, the most that such a file can have"
    return UnfitFileError(errno.EFBIG, text, str(path))
