"""Record each file's result as soon as it is read, so that an interrupted preparation can resume.

The journal holds one JSON object per line, in the order in which files were finished. At the end
the lines are rewritten in table order, so that an interrupted run leaves the same journal as an
undisturbed one. Files are identified by a keyed hash of their names, and by their sizes and times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from mamfed_client.imaging.rejections import Reason
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.files import (
    cannot_write,
    give_to_owner,
    private_directory,
    reason,
    write_atomic,
)
from mamfed_common.runtime.seal import sealed, unsealed

RETRIED = frozenset(
    {
        Reason.TOO_SLOW,
        Reason.DECODER_CRASHED,
        Reason.UNSUPPORTED_SYNTAX,
        Reason.MISSING_IMAGE,
        Reason.MISSING_MASK,
    }
)
"""Not recorded: an idle machine, a decoder, a file or a permission may be available next time."""


class Journal:
    """The results of one folder's files; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Read the journal of an earlier run, skipping a line that a crash cut short.

        Raises:
            OutputError: The file cannot be read.
        """
        self.path = path
        self._lock = Lock()
        self._known: dict[str, dict[str, Any]] = {}
        try:
            lines = read_bytes(path, STATE_BYTES).splitlines() if path.exists() else []
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {reason(path, error)}") from None
        for line in lines:
            record = _parsed(line)
            if record is not None:
                self._known[record["key"]] = record

    def find(self, key: str, stat: list[int]) -> dict[str, Any] | None:
        """Return the result of a file whose size and times are unchanged, else None."""
        record = self._known.get(key)
        if record is None or record["stat"] != stat or _is_retried(record):
            return None
        outcome: dict[str, Any] = record["outcome"]
        return outcome

    def add(self, key: str, stat: list[int], outcome: dict[str, Any]) -> None:
        """Append a result to the file immediately.

        Raises:
            OutputError: The file cannot be written.
        """
        record = {"key": key, "stat": stat, "outcome": outcome}
        line = _line(record)
        with self._lock:
            self._known[key] = record
            try:
                private_directory(self.path.parent)
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(descriptor, "ab") as file:
                    give_to_owner(descriptor, self.path.parent)
                    # The leading newline separates this line from one that a crash cut short.
                    file.write(b"\n" + line)
            except OSError as error:
                raise cannot_write(self.path, error) from None

    def finish(self, keys: Iterable[str]) -> None:
        """Keep only the records of these files, in this order.

        Raises:
            OutputError: The file cannot be written.
        """
        kept = [self._known[key] for key in keys if key in self._known]
        lasting = [record for record in kept if not _is_retried(record)]
        try:
            private_directory(self.path.parent)
            write_atomic(self.path, b"".join(_line(record) for record in lasting))
        except OSError as error:
            raise cannot_write(self.path, error) from None


def _is_retried(record: dict[str, Any]) -> bool:
    return record["outcome"].get("reason") in RETRIED


def _line(record: dict[str, Any]) -> bytes:
    return sealed(json.dumps(record, sort_keys=True)).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(unsealed(line.decode()))
        is_complete = record.keys() == {"key", "stat", "outcome"}
        if not is_complete or not isinstance(record["key"], str):
            return None
        return record if isinstance(record["outcome"], dict) else None
    except (ValueError, AttributeError, RecursionError):
        return None
