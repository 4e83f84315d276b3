"""When a round that is below its floor is done again.

Too few accepted updates make no average. Where sites can come back, the round is not the end of the
run: it is done again from the same weights, and ends with the bits of a round that nothing
disturbed. Of an attempt that failed, nothing is kept, so no update counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Hashable

from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode

LONGEST_PAUSE_SECONDS = 600.0
"""Longest time between two attempts while nothing changes: sites train in each of them."""

FOR_GOOD = frozenset(
    REFUSAL_CODES[code]
    for code in (
        RefusalCode.PLAN_NOT_SIGNED,
        RefusalCode.PLAN_OUTSIDE_POLICY,
        RefusalCode.PLAN_REFUSED,
        RefusalCode.PRIVACY_SPENT,
    )
)
"""Reasons of sites for which waiting does not help: somebody has to decide otherwise."""


class Redo:
    """Decides when the next attempt at one round begins.

    Attributes:
        paused: Whether the patience is spent. From then on an attempt is made only after a change,
            such as a site that has come back.
    """

    def __init__(self, patience_seconds: float, pause_seconds: float) -> None:
        """Prepare for the first failed attempt.

        Args:
            patience_seconds: How long attempts are repeated without a change.
            pause_seconds: Shortest time between two attempts; it doubles while nothing changes.
        """
        self.paused = False
        self._patience_seconds, self._pause_seconds = patience_seconds, pause_seconds
        self._since: float | None = None
        self._failed_at = 0.0
        self._pause = pause_seconds
        self._before: Hashable = None

    def failed(self, sites: Hashable) -> None:
        """Note a failed attempt.

        Args:
            sites: The sites that could take part, and since when; compared with those of later.
        """
        self._failed_at = time.monotonic()
        self._since = self._failed_at if self._since is None else self._since
        changed = sites != self._before
        longer = min(2 * self._pause, max(LONGEST_PAUSE_SECONDS, self._pause_seconds))
        self._pause = self._pause_seconds if changed else longer
        self._before = sites

    def check_patience(self) -> None:
        """Pause once the patience is spent."""
        assert self._since is not None, "no attempt has failed"
        self.paused = time.monotonic() - self._since >= self._patience_seconds

    def may_begin(self, sites: Hashable) -> bool:
        """Return whether the next attempt may begin, if there are sites enough."""
        waited = time.monotonic() - self._failed_at
        if sites != self._before:
            return waited >= self._pause_seconds
        return not self.paused and waited >= self._pause
