"""Scores of malignancy maps, per image, on the plan's square grid.

MONAI is imported where it is called, because a coordinator only reads scores and need not wait for
the import.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mamfed_common.metrics.detection import (
    BoolImage,
    Pixels,
    Regions,
    auroc,
    detect,
    froc,
    overlaps,
    regions_of,
)
from mamfed_common.metrics.explanation import RedrawnLesion
from mamfed_common.metrics.site_score import FOUND_SHARE, THRESHOLDS, SiteScore


class LesionScore(NamedTuple):
    """The result of one lesion.

    Attributes:
        pixels: Number of its pixels.
        dice: Dice of the lesion and the marked regions that touch it, 0 if none does. A region that
            touches two lesions counts in full for both.
        found: Whether at least :data:`FOUND_SHARE` of it is marked.
        score: Score of its best candidate, for FROC (``mamfed_common.metrics.detection``); 0
            without one.
    """

    pixels: int
    dice: float
    found: bool
    score: float


class ImageScore(NamedTuple):
    """The result of one image; pixels are those of the plan's grid.

    Attributes:
        image: The site's name for the image. It never leaves the site.
        dice: Dice of marked and malignant pixels, see :func:`dice`.
        iou: Their intersection over union, see :func:`iou`.
        lesion_pixels: Malignant pixels in the mask; 0 on an image without malignancy.
        predicted_pixels: Pixels that the network marks as malignant.
        lesion_scores: Result of each lesion (8-connected) in the mask.
        false_alarms: Score of every candidate that hits no lesion
            (``mamfed_common.metrics.detection``).
        peak: The map's maximum, 0..1.
        dice_at: Dice at each of :data:`THRESHOLDS`.
        hausdorff95_mm: 95th percentile of the distances between the outlines of marked and of
            malignant pixels, in mm; None without a pixel size, or if either is empty.
        redrawn: Results of the lesions that were found and redrawn
            (``mamfed_common.metrics.explanation``); None without a painter.
    """

    image: str
    dice: float
    iou: float
    lesion_pixels: int
    predicted_pixels: int
    lesion_scores: tuple[LesionScore, ...]
    false_alarms: tuple[float, ...]
    peak: float
    dice_at: tuple[float, ...]
    hausdorff95_mm: float | None = None
    redrawn: tuple[RedrawnLesion, ...] | None = None

    @property
    def lesions(self) -> int:
        """Number of lesions in the mask."""
        return len(self.lesion_scores)

    @property
    def lesions_found(self) -> int:
        """Number of lesions that were found, see :data:`FOUND_SHARE`."""
        return sum(lesion.found for lesion in self.lesion_scores)


def dice(predicted: BoolImage, mask: BoolImage) -> float:
    """Return the Dice coefficient of two ``(H, W)`` masks, 0..1.

    It is 1 if both masks are empty, and 0 if only one is.
    """
    from monai.metrics import compute_dice

    return float(compute_dice(*_as_batches(predicted, mask), ignore_empty=False))


def iou(predicted: BoolImage, mask: BoolImage) -> float:
    """Return the intersection over union of two ``(H, W)`` masks; empty ones as in :func:`dice`."""
    from monai.metrics import compute_iou

    return float(compute_iou(*_as_batches(predicted, mask), ignore_empty=False))


def hausdorff95_mm(predicted: BoolImage, mask: BoolImage, spacing_mm: float) -> float | None:
    """Return the 95 % Hausdorff distance of two ``(H, W)`` masks in mm; None if one is empty."""
    if not (predicted.any() and mask.any()):
        return None
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():  # MONAI 1.6 warns about an argument that it passes itself
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(
            *_as_batches(predicted, mask),
            include_background=True,
            percentile=95,
            spacing=spacing_mm,
        )
    return float(distance)


def score_image(
    image: str,
    probability: Pixels,
    mask: BoolImage,
    threshold: float,
    spacing_mm: float | None = None,
    redrawn: tuple[RedrawnLesion, ...] | None = None,
) -> ImageScore:
    """Score one image's malignancy map.

    Args:
        image: The site's name for the image.
        probability: ``(S, S)`` float32, 0..1, and 0 outside the breast.
        mask: ``(S, S)`` bool, true on malignant findings.
        threshold: Minimum probability of a marked pixel, 0..1.
        spacing_mm: Distance in mm between pixel centres of the grid, if known.
        redrawn: Results of its redrawn lesions, if any.
    """
    predicted = probability >= threshold
    lesions = regions_of(mask)
    detections = detect(probability, lesions)
    return ImageScore(
        image=image,
        dice=dice(predicted, mask),
        iou=iou(predicted, mask),
        lesion_pixels=int(mask.sum()),
        predicted_pixels=int(predicted.sum()),
        lesion_scores=_lesion_scores(predicted, lesions, detections.hits),
        false_alarms=detections.false_alarms,
        peak=float(probability.max()),
        dice_at=_dice_at(probability, mask),
        hausdorff95_mm=spacing_mm and hausdorff95_mm(predicted, mask, spacing_mm),
        redrawn=redrawn,
    )


def summarise(scores: Sequence[ImageScore]) -> SiteScore:
    """Reduce image scores to the result that may leave a site."""
    malignant = [score for score in scores if score.lesion_pixels]
    other = [score for score in scores if not score.lesion_pixels]
    curve = froc(scores)
    judged = [score.redrawn for score in malignant if score.redrawn is not None]
    redrawn = list(chain.from_iterable(judged))
    by_threshold = zip(*(score.dice_at for score in malignant), strict=True)
    return SiteScore(
        images=len(malignant),
        dice=_mean([score.dice for score in malignant]),
        lesions=sum(score.lesions for score in malignant),
        lesions_found=sum(score.lesions_found for score in malignant),
        images_without_malignancy=len(other),
        false_positive_pixels=_mean([float(score.predicted_pixels) for score in other]),
        iou=_mean([score.iou for score in malignant]),
        auroc=auroc(scores),
        sensitivity_at_1=curve and curve.sensitivity_at(1),
        dice_at=tuple(float(np.mean(values)) for values in by_threshold) or None,
        lesions_redrawn=len(redrawn) if judged else None,
        redrawn_as_tissue=sum(lesion.as_tissue for lesion in redrawn) if judged else None,
        redrawn_minus_ring=_mean([lesion.minus_ring for lesion in redrawn]),
    )


def _lesion_scores(
    predicted: BoolImage, lesions: Regions, hits: Sequence[float]
) -> tuple[LesionScore, ...]:
    """Score each lesion against the marked regions that touch it."""
    marked = regions_of(predicted)
    shared = overlaps(lesions, marked)
    covered, touching = np.zeros((2, lesions.last + 1), np.int64)
    np.add.at(covered, shared.lesion, shared.pixels)
    np.add.at(touching, shared.lesion, marked.pixels[shared.region])
    return tuple(
        LesionScore(
            pixels=int(pixels),
            dice=float(2 * covered[lesion] / (pixels + touching[lesion])),
            found=bool(covered[lesion] / pixels >= FOUND_SHARE),
            score=hits[lesion - 1],
        )
        for lesion, pixels in enumerate(lesions.pixels)
        if lesion
    )


def _dice_at(probability: Pixels, mask: BoolImage) -> tuple[float, ...]:
    """Return :func:`dice` at each threshold, from one count of the pixels between thresholds."""
    thresholds = np.array(THRESHOLDS, np.float32)  # `probability >= threshold` compares float32
    marked = _count_reaching(probability[probability >= thresholds[0]], thresholds)
    agreed = _count_reaching(probability[mask], thresholds)
    both = marked + int(mask.sum())
    return tuple(np.where(both, 2 * agreed / np.maximum(both, 1), 1.0).tolist())


def _count_reaching(values: Pixels, thresholds: Pixels) -> npt.NDArray[np.int64]:
    """Count the values that reach each of the ascending thresholds."""
    places = np.searchsorted(thresholds, values, side="right")
    return np.bincount(places, minlength=len(thresholds) + 1)[::-1].cumsum()[::-1][1:]


def _as_batches(*masks: BoolImage) -> list[torch.Tensor]:
    """Return masks in MONAI's shape, ``(1, 1, H, W)``."""
    return [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in masks]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
