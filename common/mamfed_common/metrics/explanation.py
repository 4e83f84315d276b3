"""Whether an explanation is tissue: lesions that were redrawn, against the tissue around them."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from mamfed_common.metrics.detection import FOUND_SHARE, BoolImage, Pixels, regions_of
from mamfed_common.transforms.sample import FULL_SCALE, Sample

LEAST_PIXELS = 9
"""Lesions, and rings of tissue, of fewer pixels are not judged."""
RING_WIDTH = 0.5
"""Width of the ring, in the lesion's equivalent radii."""
LEAST_RING = 3
"""Its least width in pixels."""
TISSUE = (0.05, 0.95)
"""Quantiles of the ring's pixels between which the mean of a redrawn lesion is that of tissue."""


class RedrawnLesion(NamedTuple):
    """What became of one lesion that was found and redrawn.

    Attributes:
        as_tissue: Whether its redrawn interior has a mean between :data:`TISSUE` of the ring's
            pixels.
        minus_ring: That mean minus the ring's median, as intensity in 0..1.
    """

    as_tissue: bool
    minus_ring: float


def judge_redrawn(sample: Sample, redrawn: Pixels, marked: BoolImage) -> tuple[RedrawnLesion, ...]:
    """Judge how an image's lesions were redrawn.

    Judged are the malignant regions (8-connected) of at least :data:`LEAST_PIXELS` that were found,
    see :data:`FOUND_SHARE`: what was not found is not redrawn. The ring is the breast within half
    of a lesion's equivalent radius of it, at least 3 pixels, without any malignant pixel.

    Args:
        sample: The image and its truth.
        redrawn: ``(S, S)`` float32 in 0..1: the healthy tissue that it should show.
        marked: ``(S, S)`` bool: what was found.
    """
    lesions = regions_of(sample.mask)
    judged = []
    for number in range(1, lesions.last + 1):
        lesion = lesions.labels == number
        ring = _ring(lesion) & sample.breast_mask & ~sample.mask
        if min(lesion.sum(), ring.sum()) < LEAST_PIXELS or marked[lesion].mean() < FOUND_SHARE:
            continue
        tissue = sample.image[ring] / np.float32(FULL_SCALE)
        low, median, high = np.quantile(tissue, (TISSUE[0], 0.5, TISSUE[1]))
        mean = float(redrawn[lesion].mean())
        judged.append(RedrawnLesion(bool(low <= mean <= high), mean - float(median)))
    return tuple(judged)


def _ring(lesion: BoolImage) -> BoolImage:
    """Return a lesion and what lies within the ring's width of it, in rows and in columns."""
    width = max(LEAST_RING, round(math.sqrt(lesion.sum() / math.pi) * RING_WIDTH))
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    wide = cv2.dilate(lesion.astype(np.uint8), square)
    return np.asarray(wide, np.bool_)
