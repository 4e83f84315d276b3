"""Choosing only as far as few patients can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mamfed_common.metrics import THRESHOLDS

SPREAD = 0.25
"""Standard deviation of one image's Dice: about that of lesions found well, badly or not at all."""


def nearest_threshold(dice_at: Sequence[float], images: int, preferred: float = 0.5) -> float:
    """Return the threshold nearest to the preferred one that is as good as the best, or nearly so.

    The one-standard-error rule: thresholds whose mean Dice is within a standard error of the best
    mean are equal as far as so few images can tell.

    Args:
        dice_at: Mean Dice at each of ``metrics.THRESHOLDS``.
        images: Images behind the means.
        preferred: The threshold that is taken where nothing speaks against it.

    Returns:
        One of ``metrics.THRESHOLDS``; of two that are equally near, the better one.
    """
    enough = max(dice_at) - SPREAD / math.sqrt(images)
    good = [(t, dice) for t, dice in zip(THRESHOLDS, dice_at, strict=True) if dice >= enough]
    return min(good, key=lambda found: (round(abs(found[0] - preferred), 6), -found[1]))[0]
