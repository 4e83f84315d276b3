"""Health of a site or a coordinator, as an exit code for monitoring and containers."""

from __future__ import annotations

from enum import IntEnum


class Health(IntEnum):
    """Exit codes of ``status --health``."""

    WORKING = 0
    """Connected, with or without work at the moment."""
    WAITING = 20
    """Just started, or waiting for others; nothing is wrong."""
    REFUSED = 21
    """The site refuses every request, or the coordinator refuses the site; see ``status``."""
    UNREACHABLE = 22
    """The coordinator does not answer, and has not announced the end of its run."""
    NOT_RUNNING = 23
    PAUSED = 24
    """The coordinator has waited longer than its patience; it goes on when sites come back."""

    @property
    def words(self) -> str:
        """The status as words, such as ``not running``."""
        return self.name.lower().replace("_", " ")
