"""How long to wait between two looks at what may take a second or a week."""

from __future__ import annotations

SHARE = 0.1
"""Of what was waited until then: so much later than need be is something seen, at most."""
SHORTEST_SECONDS = 0.02


def pause_seconds(
    waited_seconds: float, longest: float, shortest: float = SHORTEST_SECONDS
) -> float:
    """Return the next pause: a share of what was waited already, within bounds.

    Looks come thick while an answer may be near and thin out by themselves: a wait of an hour
    costs a hundred looks more than one of a second, not a hundred thousand.
    """
    return min(longest, max(shortest, SHARE * waited_seconds))
