"""What a small view of an image tells of its tones: where the air is, and what is tissue.

The border of a mammogram is air for the most part, and air is flat. Of 1,559 real and phantom
images none that is upright has a quarter of its border flat and bright, and of the same images
inverted 97.6 % are told, all digital ones among them. The rest are films in white frames.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import breast_view, enlarged
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected

Tones = npt.NDArray[np.float32]

VIEW = 128
"""Longest side of the view at most; every n-th pixel is taken, which keeps levels as they are."""
LEAST_SIDE = 32
"""Smaller images tell nothing."""
DARKEST, BRIGHTEST = 1, 99.5
"""Percentiles that tones are stretched between."""
RING = 3
"""Width of the border looked at, in pixels of the view."""
WINDOW, FLAT = 5, 0.02
"""Air differs less than this within a square of so many pixels."""
DARK, BRIGHT = 0.35, 0.7
RING_SHARE, RING_RATIO = 0.25, 3
"""How much of the border is flat and bright where the air is, and how much more than dark."""
AREA_SHARE, AREA_RATIO = 0.25, 4
"""Likewise, of the whole image, where the border alone is not enough."""
ABOVE_AIR = 0.75
"""Tissue is brighter than this share of the threshold that parts an image best (Otsu's)."""
LEVELS = 256
"""Bins between the darkest and the brightest tissue; one of them is one level."""


class AirShares(NamedTuple):
    """Shares of the border, and of the whole view, that are flat and bright, or flat and dark."""

    ring_bright: float
    ring_dark: float
    bright: float
    dark: float


def every_nth(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Take every n-th row and column of ``(H, W)``: a view of at most ``VIEW`` pixels a side."""
    step = -(-max(pixels.shape) // VIEW)
    return pixels[::step, ::step]


def stretched_tones(levels: npt.NDArray[Any], of: npt.NDArray[Any] | None = None) -> Tones:
    """Bring ``(h, w)`` levels to 0..1 by percentiles, of a part if given; 0 where all are one."""
    low, high = np.percentile(levels if of is None else of, (DARKEST, BRIGHTEST))
    if not high > low:
        return np.zeros(levels.shape, np.float32)
    tones: Tones = np.clip((levels - low) / (high - low), 0, 1).astype(np.float32)
    return tones


def air_is(tones: Tones) -> int:
    """Tell which end of ``(h, w)`` tones is air: -1 the low one, 1 the high one, 0 unknown."""
    if min(tones.shape) < LEAST_SIDE or tones.min() == tones.max():
        return 0
    found = _air(tones)
    if _is_one_end(found):
        return 1
    turned = AirShares(found.ring_dark, found.ring_bright, found.dark, found.bright)
    return -1 if _is_one_end(turned) else 0


def _air(tones: Tones) -> AirShares:
    mean = cv2.blur(tones, (WINDOW, WINDOW))
    square = cv2.blur(np.square(tones), (WINDOW, WINDOW))
    flat = np.sqrt(np.maximum(square - np.square(mean), 0)) < FLAT
    bright, dark = flat & (mean > BRIGHT), flat & (mean < DARK)
    ring = np.ones(tones.shape, bool)
    ring[RING:-RING, RING:-RING] = False
    return AirShares(
        *(float(flags[ring].mean()) for flags in (bright, dark)),
        *(float(flags.mean()) for flags in (bright, dark)),
    )


def _is_one_end(found: AirShares) -> bool:
    """Tell whether the bright end is the air."""
    by_ring = found.ring_bright >= max(RING_SHARE, RING_RATIO * found.ring_dark)
    by_area = found.bright >= max(AREA_SHARE, AREA_RATIO * found.dark)
    return by_ring or (by_area and found.ring_bright > found.ring_dark)


class Tissue:
    """Where tissue is on ``(h, w)`` tones: roughly at once, and finely for what is in question."""

    def __init__(self, tones: Tones) -> None:
        """Hold tones, tissue bright."""
        self.tones = tones

    @cached_property
    def rough(self) -> Mask:
        """All that is brighter than air, and air that is noisy."""
        lifted = np.rint(np.sqrt(self.tones) * 255).astype(np.uint8)
        otsu, _ = cv2.threshold(lifted, 0, 255, cv2.THRESH_OTSU)
        tissue: Mask = lifted > ABOVE_AIR * otsu
        return tissue

    @cached_property
    def fine(self) -> Mask:
        """The breast, where one is found; it takes 5 ms."""
        try:
            return enlarged(breast_view(self.tones), self.tones.shape)
        except FileRejected:
            return self.rough


def share_of_one_level(tones: npt.NDArray[Any]) -> float:
    """Return the largest share ``(n,)`` tones that lie at one level; 1 where there is but one."""
    if not tones.size:
        return 0.0
    low, high = tones.min(), tones.max()
    if not high > low:
        return 1.0
    counts, _ = np.histogram(tones, LEVELS, (low, high))
    return float(counts.max() / tones.size)
