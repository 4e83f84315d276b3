"""The log of a child process: what it says, how it ended, and nothing lost on a full disk."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from mamfed_common.runtime.files import give_to_owner, os_error_line, private_directory

LOG_BYTES = 10 * 2**20
LOG_FILES = 3


class ChildLog(RotatingFileHandler):
    """A log that belongs to who owns its folder, and that nobody else reads.

    What a full disk does not take goes to the supervisor's stderr, with the reason before it.
    """

    def __init__(self, path: Path) -> None:
        """Open it, for appending: three files of 10 MiB.

        Raises:
            OSError: It cannot be opened.
        """
        private_directory(path.parent)
        self._said = ""
        super().__init__(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8", errors="replace"
        )

    def copy(self, lines: IO[bytes]) -> None:
        """Write all that a child says until it ends."""
        with lines:
            for line in lines:
                self._write(line.decode(errors="replace").rstrip("\n"))

    def note(self, text: str) -> None:
        """Write a line of the supervisor's own, with the time as the children write it."""
        self._write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def handleError(self, record: logging.LogRecord) -> None:
        """Say a line elsewhere that cannot be written here, and once why."""
        error = sys.exc_info()[1]
        why = os_error_line(error) if isinstance(error, OSError) else repr(error)
        with suppress(OSError):  # stderr may lie on the same disk
            if why != self._said:
                print(f"{self.baseFilename}: {why}; its lines:", file=sys.stderr)
            print(record.getMessage(), file=sys.stderr, flush=True)
        self._said = why

    def close(self) -> None:
        """Close it; what the disk has not taken was said."""
        with suppress(OSError):
            super().close()

    def _write(self, text: str) -> None:
        self.handle(logging.makeLogRecord({"msg": "%s", "args": (text,)}))

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        os.fchmod(stream.fileno(), 0o600)
        give_to_owner(stream.fileno(), Path(self.baseFilename).parent)
        return stream
