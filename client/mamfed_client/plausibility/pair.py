"""A mask beside its image, on the small view on which the breast was found."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mamfed_client.mammogram import Mask, Pixels
from mamfed_client.preprocess import Look


@dataclass(frozen=True, slots=True)
class Pair:
    """What checks of masks look at.

    Attributes:
        shares: ``(h, w)`` float32 in 0..1: how much of each pixel of the view is marked.
        look: The image.
    """

    shares: Pixels
    look: Look

    @property
    def marked(self) -> float:
        """Marked area in pixels of the view."""
        return float(self.shares.sum())

    @property
    def marked_breast(self) -> float:
        """Share of the breast that is marked, 0..1."""
        breast = self.look.view.breast
        return float(self.shares[breast].sum() / breast.sum())


def pair_of(mask: Mask, look: Look) -> Pair:
    """Shrink a mask ``(H, W)`` to the image's view."""
    height, width = look.view.breast.shape
    levels = mask.view(np.uint8) * np.uint8(255)
    small = cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA)
    return Pair(small / np.float32(255), look)
