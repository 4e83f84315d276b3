"""Quality of explanations: redrawn lesions compared with the tissue around them."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from mamfed_common.metrics.detection import BoolImage, Pixels, regions_of
from mamfed_common.metrics.site_score import FOUND_SHARE
from mamfed_common.transforms.sample import FULL_SCALE, Sample

LEAST_PIXELS = 9
"""Minimum pixels of a lesion, and of the ring of tissue around it, to be judged."""
RING_WIDTH = 0.5
"""Width of the ring, in equivalent radii of the lesion."""
LEAST_RING = 3
"""Minimum width of the ring, in pixels."""
TISSUE = (0.05, 0.95)
"""A redrawn lesion looks like tissue if its mean lies between these quantiles of the ring."""


class RedrawnLesion(NamedTuple):
    """The result of redrawing one lesion.

    Attributes:
        as_tissue: Whether the mean of its redrawn interior lies between the :data:`TISSUE`
            quantiles of the ring's pixels.
        minus_ring: That mean minus the ring's median, in units of intensity (0..1).
    """

    as_tissue: bool
    minus_ring: float


def judge_redrawn(sample: Sample, redrawn: Pixels, marked: BoolImage) -> tuple[RedrawnLesion, ...]:
    """Compare an image's redrawn lesions with the tissue around them.

    Only lesions (8-connected) of at least :data:`LEAST_PIXELS` that were found are judged, see
    :data:`FOUND_SHARE`; the others are not redrawn. The ring is the part of the breast within half
    a lesion's equivalent radius of it, at least 3 pixels wide, without malignant pixels.

    Args:
        sample: The image with its mask.
        redrawn: ``(S, S)`` float32 in 0..1: the image with its marked regions redrawn.
        marked: ``(S, S)`` bool, true in marked regions.
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
    """Return a lesion together with all pixels within the ring's width, in rows and columns."""
    width = max(LEAST_RING, round(math.sqrt(lesion.sum() / math.pi) * RING_WIDTH))
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    wide = cv2.dilate(lesion.astype(np.uint8), square)
    return np.asarray(wide, np.bool_)
