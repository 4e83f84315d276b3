"""The score of one site, as it travels and as it is kept.

It is apart from ``scores.py``, which computes it, because a coordinator only reads it: nothing here
imports torch or OpenCV.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mamfed_common.config import Config

THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
"""Thresholds at which every image's Dice is computed, so that validation can choose among them."""

FOUND_SHARE = 0.1
"""A lesion counts as found if at least this fraction of its pixels is marked."""

HALF = 0.5
"""The threshold that is not chosen on data; results at another threshold are reported with it."""

Share = Annotated[float, Field(ge=0, le=1)]


class SiteScore(Config):
    """The result of one site as it may leave the site: means and the counts behind them.

    None means that there was no image to average, or that the site's policy withholds the value.

    Attributes:
        images: Images with malignancy, over which ``dice``, ``iou`` and ``dice_at`` are means.
        dice: Mean Dice on them, 0..1.
        lesions: Lesions in them, the denominator of the sensitivities.
        lesions_found: How many of them were found.
        images_without_malignancy: Images over which ``false_positive_pixels`` is a mean.
        false_positive_pixels: Mean number of marked pixels on an image without malignancy.
        iou: Mean intersection over union on the images with malignancy, 0..1.
        auroc: AUROC of the maps' maxima for images with against those without malignancy, 0..1;
            None if either class is missing.
        sensitivity_at_1: Fraction of ``lesions`` hit at one false positive per image, 0..1, over
            images with and without malignancy; None without a lesion.
        dice_at: Mean Dice on the images with malignancy at each of :data:`THRESHOLDS`.
        lesions_redrawn: Lesions in ``images`` that were found, redrawn and judged
            (``mamfed_common.metrics.explanation``); None without a painter.
        redrawn_as_tissue: How many of them became as bright as the tissue around them.
        redrawn_minus_ring: Mean over them of their redrawn brightness minus that of the tissue
            around them, -1..1.
    """

    images: int | None = Field(ge=0)
    dice: float | None = Field(ge=0, le=1)
    lesions: int | None = Field(ge=0)
    lesions_found: int | None = Field(ge=0)
    images_without_malignancy: int | None = Field(ge=0)
    false_positive_pixels: float | None = Field(ge=0)
    iou: Share | None = None
    auroc: Share | None = None
    sensitivity_at_1: Share | None = None
    dice_at: tuple[Share, ...] | None = Field(
        default=None, min_length=len(THRESHOLDS), max_length=len(THRESHOLDS)
    )
    lesions_redrawn: int | None = Field(default=None, ge=0)
    redrawn_as_tissue: int | None = Field(default=None, ge=0)
    redrawn_minus_ring: float | None = Field(default=None, ge=-1, le=1)

    @property
    def dice_at_half(self) -> float | None:
        """Mean Dice at 0.5; None if ``dice_at`` is."""
        return self.dice_at[THRESHOLDS.index(HALF)] if self.dice_at else None

    @property
    def sensitivity(self) -> float | None:
        """Fraction of lesions that were found; None if there are none or the count is withheld."""
        count = self.lesions_found
        return count / self.lesions if self.lesions and count is not None else None
