"""Find air and tissue on a small view of an image.

Most of a mammogram's border is air, and air is flat. Among 1,559 real and phantom images, none of
correct polarity has a quarter of its border flat and bright. Inverted, 97.6 % of them are detected,
including all digital ones; the others are films in white frames.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import breast_view, upscale_mask
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected

Tones = npt.NDArray[np.float32]

VIEW = 128
"""Maximum side of the view in pixels. The view takes every n-th pixel, which preserves levels."""
LEAST_SIDE = 32
"""Minimum side of a view from which anything is inferred."""
DARKEST, BRIGHTEST = 1, 99.5
"""Percentiles that map to tones 0 and 1."""
RING = 3
"""Width of the examined border in pixels of the view."""
WINDOW, FLAT = 5, 0.02
"""Within a square of ``WINDOW`` pixels, the standard deviation of air is below ``FLAT``."""
DARK, BRIGHT = 0.35, 0.7
"""Air is darker than ``DARK`` or, in an inverted image, brighter than ``BRIGHT``."""
RING_SHARE, RING_RATIO = 0.25, 3
"""Air is bright if at least this share of the border is flat and bright, and at least this many
times the share that is flat and dark."""
AREA_SHARE, AREA_RATIO = 0.25, 4
"""The same limits for the whole view, used when the border alone is inconclusive."""
ABOVE_AIR = 0.75
"""Tissue is brighter than this fraction of Otsu's threshold."""
LEVELS = 256
"""Number of bins between the darkest and the brightest tissue; each bin counts as one level."""


class AirShares(NamedTuple):
    """Shares of the border and of the whole view that are flat and bright, or flat and dark."""

    ring_bright: float
    ring_dark: float
    bright: float
    dark: float


def every_nth(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return every n-th row and column of ``(H, W)``: at most ``VIEW`` pixels a side."""
    step = -(-max(pixels.shape) // VIEW)
    return pixels[::step, ::step]


def stretched_tones(levels: npt.NDArray[Any], of: npt.NDArray[Any] | None = None) -> Tones:
    """Scale ``(h, w)`` levels to 0..1 by percentiles; return zeros if all levels are equal.

    The percentiles are those of ``of``, if given.
    """
    low, high = np.percentile(levels if of is None else of, (DARKEST, BRIGHTEST))
    if not high > low:
        return np.zeros(levels.shape, np.float32)
    tones: Tones = np.clip((levels - low) / (high - low), 0, 1).astype(np.float32)
    return tones


def find_air(tones: Tones) -> int:
    """Return which end of ``(h, w)`` tones is air: -1 the low end, 1 the high end, 0 unknown."""
    if min(tones.shape) < LEAST_SIDE or tones.min() == tones.max():
        return 0
    shares = _air_shares(tones)
    if _air_is_bright(shares):
        return 1
    inverted = AirShares(shares.ring_dark, shares.ring_bright, shares.dark, shares.bright)
    return -1 if _air_is_bright(inverted) else 0


def _air_shares(tones: Tones) -> AirShares:
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


def _air_is_bright(shares: AirShares) -> bool:
    by_ring = shares.ring_bright >= max(RING_SHARE, RING_RATIO * shares.ring_dark)
    by_area = shares.bright >= max(AREA_SHARE, AREA_RATIO * shares.dark)
    return by_ring or (by_area and shares.ring_bright > shares.ring_dark)


class Tissue:
    """Tissue masks on ``(h, w)`` tones: a quick rough one and a slower, precise one."""

    def __init__(self, tones: Tones) -> None:
        """Store the tones, tissue bright."""
        self.tones = tones

    @cached_property
    def rough(self) -> Mask:
        """Everything brighter than air, including some noisy air."""
        lifted = np.rint(np.sqrt(self.tones) * 255).astype(np.uint8)
        otsu, _ = cv2.threshold(lifted, 0, 255, cv2.THRESH_OTSU)
        tissue: Mask = lifted > ABOVE_AIR * otsu
        return tissue

    @cached_property
    def fine(self) -> Mask:
        """The breast, or the rough mask if no breast is found; takes 5 ms."""
        try:
            return upscale_mask(breast_view(self.tones), self.tones.shape)
        except FileRejected:
            return self.rough


def share_of_one_level(tones: npt.NDArray[Any]) -> float:
    """Return the largest share of ``(n,)`` tones at one level; 1 if all are equal."""
    if not tones.size:
        return 0.0
    low, high = tones.min(), tones.max()
    if not high > low:
        return 1.0
    counts, _ = np.histogram(tones, LEVELS, (low, high))
    return float(counts.max() / tones.size)
