"""JSON Lines files that survive a crash: a line is either complete and on disk, or not read."""

from __future__ import annotations

import os
from pathlib import Path

from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import give_to_owner, name_in_errors


def append_line(path: Path, line: str) -> None:
    """Append a line to a file (0600) and flush it to disk; if that fails, nothing was appended."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with name_in_errors(path), os.fdopen(descriptor, "rb+", buffering=0) as handle:
        give_to_owner(descriptor, path.parent)
        end = handle.seek(0, os.SEEK_END)
        torn = end and os.pread(descriptor, 1, end - 1) != b"\n"
        # One write: another process that reads the file sees the complete line or nothing. A disk
        # that fills up accepts a part; the next call raises.
        data = ("\n" * bool(torn) + line + "\n").encode()
        written = 0
        try:
            while written < len(data):
                written += handle.write(data[written:])
            os.fsync(descriptor)
        except OSError:
            if os.fstat(descriptor).st_size == end + written:  # nobody else has appended
                os.ftruncate(descriptor, end)
            raise


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of a file, or none if it does not exist.

    Text after the last newline is dropped: it is still being written, or a crash cut it short.
    """
    if not path.exists():
        return []
    text = read_bytes(path, STATE_BYTES).decode(errors="replace")
    return [line for line in text.split("\n")[:-1] if line]
