"""Standard streams of a process that may outlive its terminal.

A run goes on where its terminal is closed, its reader ends (``| head``) or was never there: what
can no longer be shown is dropped. A console of few letters gets the others escaped.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO

GONE = frozenset({errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF, errno.ENOTCONN})
"""What the system answers to a write to a terminal, pipe or socket that nobody reads any more."""


class TolerantStream:
    """A text stream that drops what can no longer be written; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        """Write to a stream as long as somebody is there."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has of that name."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; return its length, shown or not."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Bring to the reader what is written."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Lead the stream's descriptor nowhere where its reader is gone, and raise all else."""
        if isinstance(error, OSError) and error.errno not in GONE:
            raise error
        if isinstance(error, ValueError) and not self._stream.closed:
            raise error
        if not self._stream.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def tolerate_closed_streams() -> None:
    """Let stdout and stderr outlive their readers; to be called once, first thing in a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we began: 1 and 2 must not become files of ours
            stream = open(os.devnull, "w", encoding="utf-8")
        if isinstance(stream, TolerantStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, TolerantStream(stream))
