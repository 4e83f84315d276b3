"""Wait for room: a full disk, and no free descriptor or memory, pass; the round goes on then.

A server process that ended on a full disk lost its round, and every site trained it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from mamfed_common.runtime.files import may_pass, os_error_line
from mamfed_common.runtime.wording import span

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""How long the server waits before it tries again what the machine had no room for."""
LOOK_SECONDS = 0.2
"""How often it looks meanwhile whether it was asked to stop."""

Result = TypeVar("Result")


class Again(Protocol):
    """Calls an action, and calls it again where the machine had no room for it."""

    def __call__(self, action: Callable[[], Result]) -> Result:
        """Return what the action returns. Whatever failed must have left nothing behind."""


def once(action: Callable[[], Result]) -> Result:
    """Call an action once, as a simulation does: its user sees the error and frees some space."""
    return action()


class WaitForRoom:
    """Repeats an action until there is room for it."""

    def __init__(
        self,
        seconds: float,
        check_stopping: Callable[[], None],
        on_room: Callable[[str, float], None],
    ) -> None:
        """Wait between two tries.

        Args:
            seconds: How long.
            check_stopping: Raises an error where the run was asked to stop.
            on_room: Called once there is room again, with the reason and the seconds that it took.
        """
        self._seconds, self._check_stopping, self._on_room = seconds, check_stopping, on_room

    def __call__(self, action: Callable[[], Result]) -> Result:
        """Call an action until it succeeds.

        Raises:
            OSError: It failed for a reason that does not pass, such as a missing permission.
        """
        since, why = 0.0, ""
        while True:
            try:
                result = action()
            except OSError as error:
                if not may_pass(error):
                    raise
                if not why:
                    since, why = time.monotonic(), os_error_line(error)
                    logger.warning("no room: %s; trying again every %s", why, span(self._seconds))
                self._pause()
            else:
                if why:
                    seconds = time.monotonic() - since
                    logger.info("there is room again, after %s", span(seconds))
                    self._on_room(why, seconds)
                return result

    def _pause(self) -> None:
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > 0:
            self._check_stopping()
            time.sleep(min(left, LOOK_SECONDS))
