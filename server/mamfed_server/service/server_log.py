"""The log of the server process: one bounded line an entry, whatever an attacker sends.

Flower and uvicorn log what a request contains. A line feed in it must not begin a line of its own,
a control character must not reach a terminal, and no flood of requests may push everything else out
of the log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import TracebackType

from mamfed_common.runtime.wording import printable

LINE_CHARACTERS, TRACEBACK_LINES = 1000, 60
WINDOW_SECONDS, LINES_PER_WINDOW = 60.0, 100


class LineFormatter(logging.Formatter):
    """Formats an entry as one line; a traceback has further lines, which begin with ``|``."""

    def __init__(self) -> None:
        """Format as ``TIME LEVEL TEXT``."""
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the entry's first line."""
        return printable(super().formatMessage(record), LINE_CHARACTERS)

    def formatException(
        self, ei: tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
    ) -> str:
        """Return a traceback, each line of it marked, the last ones if there are too many."""
        lines = super().formatException(ei).split("\n")[-TRACEBACK_LINES:]  # type: ignore[arg-type]
        return "\n".join(f"| {printable(line, LINE_CHARACTERS)}" for line in lines)


@dataclass
class _Window:
    began: float
    lines: int = 0


class FloodFilter(logging.Filter):
    """Leaves out entries of one place in the code beyond 100 a minute, and says how many."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Count from now; ``clock`` returns the time in seconds."""
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, int], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write an entry."""
        place, now = (record.pathname, record.lineno), self._clock()
        window = self._windows.setdefault(place, _Window(now))
        if now - window.began > WINDOW_SECONDS:
            left_out = window.lines - LINES_PER_WINDOW
            self._windows[place] = window = _Window(now)
            if left_out > 0:
                record.msg = f"{record.getMessage()} (and {left_out} like it were left out)"
                record.args = None
        window.lines += 1
        return window.lines <= LINES_PER_WINDOW


def log_to_stderr() -> None:
    """Write this process's log to stderr, from where the supervisor copies it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(FloodFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO)  # DEBUG writes four lines a second for each waiting site
    flower.handlers.clear()
