"""The sites' scores taken together: a mean over sites, and a mean over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mamfed_common.metrics.site_score import SiteScore


class PooledValidation(NamedTuple):
    """Validation of one round, pooled over sites by images.

    Attributes:
        dice: Mean Dice at 0.5; of a site that withholds ``dice_at``, at the plan's threshold.
        images: Images behind it; a site that withholds its number counts as one.
    """

    dice: float
    images: int


def pool(validation: Mapping[str, SiteScore]) -> PooledValidation | None:
    """Pool a round's validation over sites; None where no site reports a Dice."""
    known = [(_dice(score), images_behind(score)) for score in validation.values()]
    reported = [(dice, images) for dice, images in known if dice is not None and images]
    total = sum(images for _, images in reported)
    if not total:
        return None
    return PooledValidation(sum(dice * images for dice, images in reported) / total, total)


def mean_dice_of(scores: Mapping[str, SiteScore]) -> float | None:
    """Return the mean over sites of their mean Dice; sites without such images do not count."""
    values = [score.dice for score in scores.values() if score.dice is not None]
    return sum(values) / len(values) if values else None


def mean_dice_at_half_of(scores: Mapping[str, SiteScore]) -> float | None:
    """Return the mean over sites of their mean Dice at 0.5; sites that withhold it do not count."""
    values = [score.dice_at_half for score in scores.values() if score.dice_at_half is not None]
    return sum(values) / len(values) if values else None


def images_behind(score: SiteScore) -> int:
    """Return the images behind a score; a site that withholds their number counts as one."""
    return 1 if score.images is None else score.images


def _dice(score: SiteScore) -> float | None:
    return score.dice if score.dice_at_half is None else score.dice_at_half
