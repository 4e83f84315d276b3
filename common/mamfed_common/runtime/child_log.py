"""The log of a child process: its output and how it ended."""

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
    """A log that belongs to the owner of its folder and is readable by nobody else.

    Lines that cannot be written, as on a full disk, go to the supervisor's stderr with the reason.
    """

    def __init__(self, path: Path) -> None:
        """Open the log for appending: three files of 10 MiB.

        Raises:
            OSError: It cannot be opened.
        """
        private_directory(path.parent)
        self._reported = ""
        super().__init__(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8", errors="replace"
        )

    def copy(self, lines: IO[bytes]) -> None:
        """Write a child's output until it exits."""
        with lines:
            for line in lines:
                self._write(line.decode(errors="replace").rstrip("\n"))

    def note(self, text: str) -> None:
        """Write a line of the supervisor, with a timestamp in the children's format."""
        self._write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def handleError(self, record: logging.LogRecord) -> None:
        """Print a line that cannot be written to stderr, with the reason when it changes."""
        error = sys.exc_info()[1]
        why = os_error_line(error) if isinstance(error, OSError) else repr(error)
        with suppress(OSError):  # stderr may lie on the same disk
            if why != self._reported:
                print(f"{self.baseFilename}: {why}; its lines:", file=sys.stderr)
            print(record.getMessage(), file=sys.stderr, flush=True)
        self._reported = why

    def close(self) -> None:
        """Close the log; lines that could not be written were already printed."""
        with suppress(OSError):
            super().close()

    def _write(self, text: str) -> None:
        self.handle(logging.makeLogRecord({"msg": "%s", "args": (text,)}))

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        os.fchmod(stream.fileno(), 0o600)
        give_to_owner(stream.fileno(), Path(self.baseFilename).parent)
        return stream
