"""Measure the features of an image, on a small view, that the checks use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Laterality, Mask
from mamfed_client.imaging.preprocess import ImageAnalysis

STRIP = 0.04
"""Width of a strip along a side of the breast's box, as a fraction of the box."""
LEVELS = 256
"""Number of steps in a breast's grey range, to measure the share at one level."""

SKIN_MARGIN = 4
"""Texture is measured at least this far from the skin, in pixels of the view: the blur's reach."""
SAMPLE_STEP = 4
"""Every fourth pixel of the view suffices for a percentile."""


class Strips(NamedTuple):
    """The share of breast in a strip along each side of the breast's box, 0..1.

    It is large where the breast ends straight, and small where it ends in a tip.
    """

    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The features of an image.

    Attributes:
        rows: Height of the file's image in pixels.
        columns: Width of the file's image in pixels.
        view: The mammographic view, such as ``MLO``; None if unknown.
        analysis: The small view, the breast on it and its histogram.
        strips: Share of breast along each side of its box.
        aspect: Height of the breast's box divided by its width.
        evenness: Vertical symmetry, 0..1: overlap (IoU) of the breast with itself upside down,
            within its box.
        waist: Minimum height of the breast in the middle third of its box, divided by the smaller
            of the maximum heights in the outer thirds.
        borders: Share of breast on each border of the picture: left, right, top, bottom.
        plain_share: Share of the breast at one grey level, or adjacent to it.
        texture: Typical difference from the blurred view within the breast, as a fraction of its
            grey range.
    """

    rows: int
    columns: int
    view: str | None
    analysis: ImageAnalysis
    strips: Strips
    aspect: float
    evenness: float
    waist: float
    borders: tuple[float, float, float, float]
    plain_share: float
    texture: float

    @property
    def chest_wall(self) -> Laterality | None:
        """The side of the picture on which the breast clearly ends straight; None if unclear."""
        difference = self.strips.left - self.strips.right
        return None if abs(difference) < CLEAR else "L" if difference > 0 else "R"


CLEAR = 0.3
"""Minimum difference of the left and right strips; 97 % of 1,709 images reach it."""


def measure_image(
    shape: tuple[int, int], view: str | None, analysis: ImageAnalysis
) -> ImageFeatures:
    """Measure the features of an image of ``shape`` pixels."""
    breast = analysis.view.breast
    box = Box.around(breast)
    assert box is not None
    inside = breast[box.top : box.bottom, box.left : box.right]
    edges = (breast[:, 0], breast[:, -1], breast[0], breast[-1])
    left, right, top, bottom = (float(edge.mean()) for edge in edges)
    return ImageFeatures(
        rows=shape[0],
        columns=shape[1],
        view=view,
        analysis=analysis,
        strips=_strips(inside),
        aspect=inside.shape[0] / inside.shape[1],
        evenness=_evenness(inside),
        waist=_waist(inside),
        borders=(left, right, top, bottom),
        plain_share=_plain_share(analysis.darker),
        texture=_texture(analysis.view.levels, breast, box),
    )


def _strips(inside: Mask) -> Strips:
    across, down = (max(1, round(STRIP * side)) for side in inside.shape[::-1])
    strips = (inside[:, :across], inside[:, -across:], inside[:down], inside[-down:])
    return Strips(*(float(strip.mean()) for strip in strips))


def _evenness(inside: Mask) -> float:
    flipped = inside[::-1]
    return float(np.count_nonzero(inside & flipped) / np.count_nonzero(inside | flipped))


def _waist(inside: Mask) -> float:
    heights = np.count_nonzero(inside, axis=0)
    third = max(1, heights.size // 3)
    middle = heights[third:-third] if heights.size > 2 * third else heights
    return float(middle.min() / min(heights[:third].max(), heights[-third:].max()))


def _plain_share(darker: npt.NDArray[np.int64]) -> float:
    """Return the largest share of the breast in three adjacent steps of its grey range."""
    low, high = np.searchsorted(darker, (0.005 * darker[-1], 0.995 * darker[-1]))
    width = max(1, -(-(int(high) - int(low) + 1) // LEVELS))
    below, above = np.zeros(3, np.int64), np.repeat(darker[-1], 3)
    ends = np.concatenate((below, darker[width - 1 :: width], above))
    return float((ends[3:] - ends[:-3]).max() / darker[-1])


def _texture(levels: npt.NDArray[np.generic], breast: Mask, box: Box) -> float:
    """Return the median difference of the view from its blur away from the skin; 0 if flat."""
    near = (
        slice(max(0, box.top - SKIN_MARGIN), box.bottom + SKIN_MARGIN),
        slice(max(0, box.left - SKIN_MARGIN), box.right + SKIN_MARGIN),
    )
    view, body = levels[near].astype(np.float32), np.ascontiguousarray(breast[near])
    size = (2 * SKIN_MARGIN + 1, 2 * SKIN_MARGIN + 1)
    inner = cv2.erode(body.view(np.uint8), np.ones(size, np.uint8)).view(np.bool_)
    low, high = np.percentile(view[body][::SAMPLE_STEP], (0.5, 99.5))
    if not inner.any() or not high > low:
        return 0.0
    fine = cv2.absdiff(view, cv2.GaussianBlur(view, size, 2))
    return float(np.median(fine[inner][::SAMPLE_STEP]) / (high - low))
