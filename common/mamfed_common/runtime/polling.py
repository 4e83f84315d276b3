"""Polling intervals for events that may take a second or a week."""

from __future__ import annotations

SHARE = 0.1
"""Polling interval as a fraction of the time waited so far: events are seen at most 10 % late."""
SHORTEST_SECONDS = 0.02


def pause_seconds(
    waited_seconds: float, longest: float, shortest: float = SHORTEST_SECONDS
) -> float:
    """Return the next polling interval: a fraction of the time waited so far, within bounds.

    Polls are frequent at first and become rarer: a wait of an hour takes a hundred polls more than
    a wait of a second, not a hundred thousand.
    """
    return min(longest, max(shortest, SHARE * waited_seconds))
