"""How a site or a coordinator is doing, as an exit code for monitors and containers."""

from __future__ import annotations

from enum import IntEnum


class Health(IntEnum):
    """What ``status --health`` ends with."""

    WORKING = 0
    """In touch, whether or not there is work just now."""
    WAITING = 20
    """Just started, or waiting for others: nothing is wrong."""
    REFUSED = 21
    """This site refuses every request, or the coordinator this site: ``status`` says why."""
    UNREACHABLE = 22
    """The coordinator does not answer, and did not say that its run has ended."""
    NOT_RUNNING = 23

    @property
    def words(self) -> str:
        """Say it in words."""
        return self.name.lower().replace("_", " ")
