"""How good a malignancy map is, on the plan's square grid, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_dice
from pydantic import Field

from mamfed_common.config import Config

BoolImage = npt.NDArray[np.bool_]

FOUND_SHARE = 0.1
"""A lesion counts as found when at least this share of its pixels is marked."""


class ImageScore(NamedTuple):
    """One image's result; pixels are those of the plan's grid.

    Attributes:
        image: What the site calls the image. It stays at the site.
        dice: Dice of marked and malignant pixels, see :func:`dice`.
        lesion_pixels: Malignant pixels in the mask; 0 on an image without malignancy.
        predicted_pixels: Pixels that the network marks as malignant.
        lesions: Separate malignant regions (8-connected) in the mask.
        lesions_found: How many of them are found, see :data:`FOUND_SHARE`.
    """

    image: str
    dice: float
    lesion_pixels: int
    predicted_pixels: int
    lesions: int
    lesions_found: int


def dice(predicted: BoolImage, mask: BoolImage) -> float:
    """Return the Dice coefficient of two ``(H, W)`` masks, 0..1.

    Two empty masks agree: 1. One empty mask against one that is not: 0.
    """
    pair = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in (predicted, mask))
    return float(compute_dice(*pair, ignore_empty=False))


def score_image(image: str, predicted: BoolImage, mask: BoolImage) -> ImageScore:
    """Score one image's marked pixels, ``(H, W)``, against its malignant ones."""
    count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    found = sum(
        bool(predicted[regions == label].mean() >= FOUND_SHARE) for label in range(1, count)
    )
    return ImageScore(
        image=image,
        dice=dice(predicted, mask),
        lesion_pixels=int(mask.sum()),
        predicted_pixels=int(predicted.sum()),
        lesions=count - 1,
        lesions_found=found,
    )


class SiteScore(Config):
    """One site's result, as it may leave the site: means and the counts behind them.

    None stands for a mean over no image, and for what the site's policy withholds.

    Attributes:
        images: Images with malignancy, behind ``dice``.
        dice: Their mean Dice, 0..1.
        lesions: Malignant regions in those images, behind the sensitivity.
        lesions_found: How many of them were found.
        images_without_malignancy: Images behind ``false_positive_pixels``.
        false_positive_pixels: Mean marked pixels on an image without malignancy.
    """

    images: int | None = Field(ge=0)
    dice: float | None = Field(ge=0, le=1)
    lesions: int | None = Field(ge=0)
    lesions_found: int | None = Field(ge=0)
    images_without_malignancy: int | None = Field(ge=0)
    false_positive_pixels: float | None = Field(ge=0)

    @property
    def sensitivity(self) -> float | None:
        """Share of malignant regions that were found; None where there are none, or withheld."""
        found = self.lesions_found
        return found / self.lesions if self.lesions and found is not None else None


def summarise(scores: Sequence[ImageScore]) -> SiteScore:
    """Reduce image scores to what may leave a site."""
    malignant = [score for score in scores if score.lesion_pixels]
    other = [score for score in scores if not score.lesion_pixels]
    return SiteScore(
        images=len(malignant),
        dice=_mean([score.dice for score in malignant]),
        lesions=sum(score.lesions for score in malignant),
        lesions_found=sum(score.lesions_found for score in malignant),
        images_without_malignancy=len(other),
        false_positive_pixels=_mean([float(score.predicted_pixels) for score in other]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
