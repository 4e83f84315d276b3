"""Measure the features of a mask, on the small view of its image, that the checks use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import VIEW
from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Mask, Pixels
from mamfed_client.imaging.preprocess import ImageAnalysis

FINE = 4 * VIEW
"""Longest side of the finer view on which many pieces are counted."""
MANY = 10
TOLERANCE = 9
"""Size of the square by which the breast is dilated to allow for an inaccurate outline, in pixels
of the view."""


@dataclass(frozen=True, slots=True)
class MaskFeatures:
    """The features of a mask.

    Attributes:
        shares: ``(h, w)`` float32 in 0..1: marked share of each pixel of the view.
        core: ``(h, w)`` bool: pixels at least half marked.
        analysis: Analysis of the image.
        touched: Pixels with any mark, cropped to their bounding box.
        solid: The core, cropped to the same box.
        pieces: Number of separate pieces.
        of_breast: Marked share of the breast, 0..1.
        of_image: Marked share of the image, 0..1.
        beside: Share of the mask that lies clearly outside the breast, 0..1.
        fit: Best overlap (IoU), within the breast, with a threshold of the grey levels.
        outlines: Number of outlines that the mask was drawn from; 0 if it was not drawn.
    """

    shares: Pixels
    core: Mask
    analysis: ImageAnalysis
    touched: Mask
    solid: Mask
    pieces: int
    of_breast: float
    of_image: float
    beside: float
    fit: float
    outlines: int


def measure_mask(mask: Mask, analysis: ImageAnalysis, outlines: int = 0) -> MaskFeatures:
    """Reduce a mask ``(H, W)``, not empty, to the image's view and measure its features."""
    fine = _reduce(mask.view(np.uint8) * np.uint8(255), FINE / max(mask.shape))
    breast = analysis.view.breast
    small = np.asarray(cv2.resize(fine, breast.shape[::-1], interpolation=cv2.INTER_AREA))
    if not small.any():  # the mask has only a few pixels of a large image
        rows, columns = np.nonzero(mask)
        (height, width), (small_height, small_width) = mask.shape, small.shape
        small[rows * small_height // height, columns * small_width // width] = 1
    shares = small.astype(np.float32) / np.float32(255)
    box = Box.around(small > 0)
    assert box is not None
    crop = slice(box.top, box.bottom), slice(box.left, box.right)
    near = cv2.dilate(breast.view(np.uint8), np.ones((TOLERANCE, TOLERANCE), np.uint8)) > 0
    core: Mask = np.asarray(shares >= 0.5)
    return MaskFeatures(
        shares=shares,
        core=core,
        analysis=analysis,
        touched=np.ascontiguousarray(small[crop] > 0),
        solid=np.ascontiguousarray(core[crop]),
        pieces=_pieces(small[crop], fine),
        of_breast=float(shares[breast].mean()),
        of_image=float(shares.mean()),
        beside=float(shares[~near].sum() / shares.sum()),
        fit=_fit(analysis.view.levels[breast], core[breast]),
        outlines=outlines,
    )


def _pieces(small: npt.NDArray[np.uint8], fine: npt.NDArray[np.uint8]) -> int:
    """Count pieces on the small view or, if there are many, on the finer one."""
    count = cv2.connectedComponents((small > 0).view(np.uint8))[0] - 1
    return count if count < MANY else cv2.connectedComponents((fine > 0).view(np.uint8))[0] - 1


def _fit(levels: npt.NDArray[Any], marked: Mask) -> float:
    """Return the best IoU of the mask with a threshold, trying every level of the breast."""
    order = np.argsort(-levels, kind="stable")
    intersection = np.cumsum(marked[order])
    union = np.arange(1, len(order) + 1) + marked.sum() - intersection
    return float((intersection / union).max())


def _reduce(levels: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale >= 1:
        return levels
    height, width = (max(1, round(side * scale)) for side in levels.shape)
    return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA))
