"""Standard streams for processes that may outlive their terminal.

A run continues if its terminal closes, its reader exits (``| head``) or never existed; output that
can no longer be shown is dropped. Characters that the console's encoding lacks are escaped.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO

GONE = frozenset({errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF, errno.ENOTCONN})
"""Errors of writing to a terminal, pipe or socket that nobody reads any more."""


class TolerantStream:
    """A wrapper of a text stream that drops output once nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream itself."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; return its length, whether or not it was shown."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Redirect the stream's descriptor to nowhere if its reader is gone; else raise."""
        if isinstance(error, OSError) and error.errno not in GONE:
            raise error
        if isinstance(error, ValueError) and not self._stream.closed:
            raise error
        if not self._stream.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def tolerate_closed_streams() -> None:
    """Let stdout and stderr outlive their readers; call this first in a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed at start: descriptors 1 and 2 must not become our own files
            stream = open(os.devnull, "w", encoding="utf-8")
        if isinstance(stream, TolerantStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, TolerantStream(stream))
