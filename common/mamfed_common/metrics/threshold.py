"""Choosing a threshold only as far as few patients can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mamfed_common.metrics.scores import HALF, THRESHOLDS

DICE_DEVIATION = 0.25
"""Standard deviation of one image's Dice: on CDD-CESM .25 to .30, on six mini-MIAS .06 to .24."""


def standard_error(images: int) -> float:
    """Return the standard error of a mean Dice over so many images."""
    return DICE_DEVIATION / math.sqrt(images)


def nearest_threshold(dice_at: Sequence[float], images: int) -> float:
    """Return the threshold nearest to 0.5 that is as good as the best, or nearly so.

    The one-standard-error rule (Breiman et al. 1984; Hastie et al., ESL 7.10): thresholds whose
    mean Dice is within a standard error of the best are equal as far as so few images can tell.

    Args:
        dice_at: Mean Dice at each of ``metrics.THRESHOLDS``.
        images: Images behind the means.

    Returns:
        One of ``metrics.THRESHOLDS``; of two that are equally near, the better one.
    """
    floor = max(dice_at) - standard_error(images)
    good = [index for index, dice in enumerate(dice_at) if dice >= floor]
    best = min(good, key=lambda index: (round(abs(THRESHOLDS[index] - HALF), 6), -dice_at[index]))
    return THRESHOLDS[best]
