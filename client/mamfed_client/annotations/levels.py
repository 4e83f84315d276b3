"""Split a mask picture into one mask per pixel value, detecting soft edges and non-masks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.annotations.outlines import NamedMask, unreadable
from mamfed_client.imaging.mammogram import Mask

MOST_VALUES = 32
"""A class map has at most this many values; a picture has more."""
CONTINUUM = 16
"""With more values than this, edges may be as wide as those of an enlarged mask."""
NARROW, WIDE = 2, 16
"""Width in pixels of the soft edge of a smoothly drawn mask, and of an enlarged mask."""
LOSSY_REACH = 8
"""JPEG spreads an edge over its blocks of 8 pixels."""
HALF = 128
"""A JPEG without pixels of this level marks nothing; JPEG is never entirely black."""
BLEND = (0.25, 0.75)
"""In a JPEG, pixels between these fractions of the range count as blended."""
STRAY, LOSSY_STRAY = 0.01, 0.1
"""Share of blended pixels that may lie away from edges; a JPEG's edges ring."""
COLOURFUL = 64
"""Minimum difference between the strongest and weakest channel of what is drawn on a grey picture.
"""


def regions(
    stored: npt.NDArray[Any], *, lossy: bool = False, soft: bool = True
) -> tuple[NamedMask, ...]:
    """Split a picture by pixel value.

    Args:
        stored: ``(H, W)`` grey, or ``(H, W, 3)`` blue, green, red.
        lossy: Whether it was JPEG-compressed.
        soft: Whether a mask may have soft edges.

    Returns:
        A mask for each value, named like ``0``, ``255`` or ``#ff0000``; two for a mask with soft
        edges. If the regions are drawn on a grey picture, ``picture`` names the rest.

    Raises:
        FileRejected: It is an image: its values are not classes.
    """
    if stored.ndim == 3:
        lit = [n for n in range(3) if stored[..., n].any()]
        if len(lit) > 1 and not _is_grey(stored, lossy):
            return _colours(stored)
        stored = np.ascontiguousarray(stored[..., lit[0] if lit else 0])
    return _grey(stored, lossy, soft)


def _is_grey(stored: npt.NDArray[Any], lossy: bool) -> bool:
    spread = stored.max(axis=-1).astype(np.int64) - stored.min(axis=-1)
    return bool(spread.max() <= (COLOURFUL if lossy else 0))


def _grey(stored: npt.NDArray[Any], lossy: bool, soft: bool) -> tuple[NamedMask, ...]:
    values = _values(stored)
    if lossy and values[-1] < HALF:
        return (NamedMask(np.ones(stored.shape, np.bool_), "0"),)
    if soft and (len(values) > 2 or lossy):
        marked = _blended(stored, values, lossy)
        if marked is not None:
            low, high = (0, 255) if lossy else (values[0], values[-1])
            return NamedMask(~marked, _name(low)), NamedMask(marked, _name(high))
    if lossy or len(values) > MOST_VALUES:
        raise unreadable(f"this is an image, not a mask ({len(values)} grey levels)")
    return tuple(NamedMask(np.asarray(stored == value), _name(value)) for value in values)


def _values(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values that occur, in ascending order."""
    if stored.dtype not in (np.uint8, np.uint16):
        return np.unique(stored)
    every = int(np.iinfo(stored.dtype).max) + 1
    counts = cv2.calcHist([stored], [0], None, [every], [0, every])
    return np.flatnonzero(counts.ravel()).astype(stored.dtype)


def _blended(stored: npt.NDArray[Any], values: npt.NDArray[Any], lossy: bool) -> Mask | None:
    """Reduce a mask with soft edges to two values; None if blended pixels lie beyond edges."""
    low, high = float(values[0]), float(values[-1])
    start, end = (low + part * (high - low) for part in BLEND)
    marked: Mask = np.asarray(stored >= (low + high) / 2)
    between = (stored > start) & (stored < end) if lossy else (stored > low) & (stored < high)
    reach = LOSSY_REACH if lossy else WIDE if len(values) > CONTINUUM else NARROW
    disk = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
    flags = marked.view(np.uint8)
    edge = cv2.dilate(flags, disk) != cv2.erode(flags, disk)
    if lossy:
        edge &= _beside(stored > start, stored >= end)
    elif len(values) <= CONTINUUM:
        edge &= _beside(stored > low, stored == high)
    stray = LOSSY_STRAY if lossy else STRAY
    return marked if (between & ~edge).sum() <= stray * between.sum() else None


def _beside(lit: Mask, full: Mask) -> Mask:
    """Keep pieces that contain a pixel of full value; others are classes of their own."""
    count, pieces = cv2.connectedComponents(lit.view(np.uint8))
    kept = np.zeros(count, np.bool_)
    kept[pieces[full]] = True
    beside: Mask = kept[pieces]
    return beside


def _colours(stored: npt.NDArray[Any]) -> tuple[NamedMask, ...]:
    """Split a colour map, or the coloured drawing on a grey picture."""
    if stored.dtype != np.uint8:
        raise unreadable("a 16-bit coloured mask; save it with 8 bits")
    blue, green, red = (stored[..., n].astype(np.uint32) for n in range(3))
    packed = red << 16 | green << 8 | blue
    colours = np.unique(packed)
    beneath: tuple[NamedMask, ...] = ()
    if len(colours) > MOST_VALUES:
        drawn = stored.max(axis=-1).astype(np.int16) - stored.min(axis=-1) >= COLOURFUL
        colours, beneath = np.unique(packed[drawn]), (NamedMask(~drawn, "picture"),)
    if not 0 < len(colours) <= MOST_VALUES:
        raise unreadable(f"this is a coloured picture, not a mask ({len(colours)} colours)")
    named = (NamedMask(np.asarray(packed == c), f"#{c:06x}") for c in colours.tolist())
    return (*named, *beneath)


def _name(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else str(float(value))
