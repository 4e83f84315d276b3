"""Pixels of a mask picture -> one mask a value; what is an image or a blend is told apart."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.annotations.outlines import NamedMask, unreadable
from mamfed_client.imaging.mammogram import Mask

MOST_VALUES = 32
"""A map of classes has fewer values, a picture more."""
CONTINUUM = 16
"""From so many values on, edges may be as wide as an enlarged mask's are."""
NARROW, WIDE = 2, 16
"""Pixels beside an edge between which a mask may be blended: drawn smoothly, or enlarged."""
LOSSY_REACH = 8
"""JPEG smears an edge over its blocks of 8 pixels."""
HALF = 128
"""A JPEG without a brighter pixel marks nothing: it is never quite black."""
BLEND = (0.25, 0.75)
STRAY, LOSSY_STRAY = 0.01, 0.1
"""Share of blended pixels that may lie elsewhere: a JPEG's edges ring."""
COLOURFUL = 64
"""Between the strongest and the weakest channel of what is drawn over a grey picture."""


def regions(
    stored: npt.NDArray[Any], *, lossy: bool = False, soft: bool = True
) -> tuple[NamedMask, ...]:
    """Part a picture by the value of its pixels.

    Args:
        stored: ``(H, W)`` grey, or ``(H, W, 3)`` blue, green, red.
        lossy: Whether it was compressed as a JPEG.
        soft: Whether a mask may have soft edges.

    Returns:
        A mask a value, named ``0``, ``255`` or ``#ff0000``. A mask with soft edges has two. Of a
        grey picture that is drawn on, ``picture`` stands for the grey.

    Raises:
        FileRejected: It is an image: its values are no classes.
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
    """List the values that occur, the smallest first."""
    if stored.dtype not in (np.uint8, np.uint16):
        return np.unique(stored)
    every = int(np.iinfo(stored.dtype).max) + 1
    counts = cv2.calcHist([stored], [0], None, [every], [0, every])
    return np.flatnonzero(counts.ravel()).astype(stored.dtype)


def _blended(stored: npt.NDArray[Any], values: npt.NDArray[Any], lossy: bool) -> Mask | None:
    """Take a mask with soft edges for one of two values; None where more than edges is between."""
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
    """Leave the pieces that hold a pixel of full value: one that has none is a class of its own."""
    count, pieces = cv2.connectedComponents(lit.view(np.uint8))
    kept = np.zeros(count, np.bool_)
    kept[pieces[full]] = True
    beside: Mask = kept[pieces]
    return beside


def _colours(stored: npt.NDArray[Any]) -> tuple[NamedMask, ...]:
    """Part a map of colours; of a grey picture that is drawn on, what is drawn."""
    if stored.dtype != np.uint8:
        raise unreadable("a coloured mask of 16 bits; 8 are read")
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
