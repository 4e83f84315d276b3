"""Choose a threshold, but only as far as the number of validation images supports it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mamfed_common.metrics.site_score import HALF, THRESHOLDS

DICE_DEVIATION = 0.25
"""Assumed standard deviation of one image's Dice; measured .25 to .30 on CDD-CESM and .06 to .24 on
six mini-MIAS images."""


def standard_error(images: int) -> float:
    """Return the standard error of a mean Dice over a number of images."""
    return DICE_DEVIATION / math.sqrt(images)


def nearest_threshold(dice_at: Sequence[float], images: int) -> float:
    """Return the threshold nearest to 0.5 among those within one standard error of the best.

    The one-standard-error rule (Breiman et al. 1984; Hastie et al., ESL 7.10) treats thresholds
    whose mean Dice is within a standard error of the best as equally good.

    Args:
        dice_at: Mean Dice at each of ``scores.THRESHOLDS``.
        images: Number of images behind the means.

    Returns:
        One of ``scores.THRESHOLDS``; of two equally near to 0.5, the better one.
    """
    floor = max(dice_at) - standard_error(images)
    good = [index for index, dice in enumerate(dice_at) if dice >= floor]
    best = min(good, key=lambda index: (round(abs(THRESHOLDS[index] - HALF), 6), -dice_at[index]))
    return THRESHOLDS[best]
