"""How fast and at which hours images are pulled, so that the archive serves the clinic first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, sleep

from mamfed_client.site.hours import seconds_until_open

LONGEST_NAP = 60.0
"""Seconds between looks at the clock, which may be set while a pull waits."""


def _say_nothing(_: str) -> None:
    pass


@dataclass
class Throttle:
    """Waits before each image; clock and sleep can be replaced in tests.

    Attributes:
        hours: Hours in which images are pulled, local time; None: always.
        per_minute: Most images a minute.
        megabytes_per_minute: Most megabytes a minute; None: no limit.
        say: Called with a line when it begins to wait for the hours.
    """

    hours: str | None
    per_minute: float
    megabytes_per_minute: float | None
    say: Callable[[str], None] = _say_nothing
    now: Callable[[], datetime] = datetime.now
    clock: Callable[[], float] = monotonic
    sleep: Callable[[float], None] = sleep
    _began: float = field(default=0.0, init=False)
    _next: float = field(default=0.0, init=False)

    def wait(self) -> None:
        """Wait until the next image may be asked for."""
        said = False
        while (left := seconds_until_open(self.hours, self.now())) > 0:
            if not said:
                self.say(
                    f"waiting for the hours {self.hours} (archive.hours); Ctrl-C ends, and a "
                    "second call goes on"
                )
                said = True
            self.sleep(min(left, LONGEST_NAP))
        pause = self._next - self.clock()
        if pause > 0:
            self.sleep(pause)
        self._began = self.clock()

    def pulled(self, size: int) -> None:
        """Note the size in bytes of the image that was asked for since the last wait."""
        seconds = 60 / self.per_minute
        if self.megabytes_per_minute is not None:
            seconds = max(seconds, size / 1e6 / self.megabytes_per_minute * 60)
        self._next = self._began + seconds
