"""Files of JSON lines that survive a kill: a line is whole and on disk, or it is not read."""

from __future__ import annotations

import os
from pathlib import Path

from mamfed_common.runtime.files import give_to_owner, name_in_errors


def append_line(path: Path, line: str) -> None:
    """Add a line to a file (0600) and make sure that it is on disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with name_in_errors(path), os.fdopen(descriptor, "rb+", buffering=0) as handle:
        give_to_owner(descriptor, path.parent)
        torn = handle.seek(0, os.SEEK_END) and os.pread(descriptor, 1, handle.tell() - 1) != b"\n"
        # One write: another process that reads the file sees the line whole, or not at all.
        handle.write(("\n" * torn + line + "\n").encode())
        os.fsync(descriptor)


def read_lines(path: Path) -> list[str]:
    """Return the whole lines of a file, empty where there is none.

    What follows the last newline is left out: it is being written, or a kill cut it short.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.split("\n")[:-1] if line]
