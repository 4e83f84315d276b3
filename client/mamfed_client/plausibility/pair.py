"""A mask beside its image, on the small view on which the breast was found."""

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
"""Longest side of the view on which pieces are counted."""
MANY = 10
REACH = 9
"""Width in pixels of the view by which the breast's outline may be off."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What checks of masks look at; all views are ``(h, w)``.

    Attributes:
        shares: float32 in 0..1: how much of each pixel of the view is marked.
        core: Where at least half is marked.
        look: The image.
        touched: Where anything is marked, cut to the box of that.
        solid: The core, cut to the same box.
        pieces: Number of separate pieces.
        of_breast: Share of the breast that is marked, 0..1.
        of_image: Share of the image that is marked, 0..1.
        beside: Share of what is marked that lies clearly outside the breast, 0..1.
        fit: Best overlap (IoU) in the breast with all that is brighter than some grey level.
        outlines: As how many outlines it was drawn, where it was drawn.
    """

    shares: Pixels
    core: Mask
    look: ImageAnalysis
    touched: Mask
    solid: Mask
    pieces: int
    of_breast: float
    of_image: float
    beside: float
    fit: float
    outlines: int


def pair_of(mask: Mask, look: ImageAnalysis, outlines: int = 0) -> Pair:
    """Shrink a mask ``(H, W)``, not empty, to the image's view, and measure it there."""
    fine = _shrunk(mask.view(np.uint8) * np.uint8(255), FINE / max(mask.shape))
    breast = look.view.breast
    small = np.asarray(cv2.resize(fine, breast.shape[::-1], interpolation=cv2.INTER_AREA))
    if not small.any():  # a few pixels of a large image
        rows, columns = np.nonzero(mask)
        (height, width), (high, wide) = mask.shape, small.shape
        small[rows * high // height, columns * wide // width] = 1
    shares = small.astype(np.float32) / np.float32(255)
    box = Box.around(small > 0)
    assert box is not None
    cut = slice(box.top, box.bottom), slice(box.left, box.right)
    near = cv2.dilate(breast.view(np.uint8), np.ones((REACH, REACH), np.uint8)) > 0
    core: Mask = np.asarray(shares >= 0.5)
    return Pair(
        shares=shares,
        core=core,
        look=look,
        touched=np.ascontiguousarray(small[cut] > 0),
        solid=np.ascontiguousarray(core[cut]),
        pieces=_pieces(small[cut], fine),
        of_breast=float(shares[breast].mean()),
        of_image=float(shares.mean()),
        beside=float(shares[~near].sum() / shares.sum()),
        fit=_fit(look.view.levels[breast], core[breast]),
        outlines=outlines,
    )


def _pieces(small: npt.NDArray[np.uint8], fine: npt.NDArray[np.uint8]) -> int:
    """Count pieces on the small view; only where they are many, on the fine one."""
    count = cv2.connectedComponents((small > 0).view(np.uint8))[0] - 1
    return count if count < MANY else cv2.connectedComponents((fine > 0).view(np.uint8))[0] - 1


def _fit(levels: npt.NDArray[Any], marked: Mask) -> float:
    """Try every grey level as a threshold; levels and marks are those of the breast's pixels."""
    order = np.argsort(-levels, kind="stable")
    both = np.cumsum(marked[order])
    either = np.arange(1, len(order) + 1) + marked.sum() - both
    return float((both / either).max())


def _shrunk(levels: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale >= 1:
        return levels
    height, width = (max(1, round(side * scale)) for side in levels.shape)
    return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA))
