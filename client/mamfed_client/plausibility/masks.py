"""Checks of a mask against its image."""

from __future__ import annotations

from collections.abc import Callable

from mamfed_client.doubts import Doubt, Doubtful
from mamfed_client.plausibility.pair import Pair

Check = Callable[[Pair], Doubtful | None]

LARGE = 0.5


def is_large(pair: Pair) -> Doubtful | None:
    """Doubt a mask that marks much of the breast."""
    if pair.marked_breast < LARGE:
        return None
    return Doubtful(Doubt.MASK_LARGE, f"{pair.marked_breast:.0%} of the breast")


CHECKS: tuple[Check, ...] = (is_large,)
