"""Opening by a large disk, bit for bit as OpenCV does it and four times as quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

View = npt.NDArray[np.uint8]
Step = Callable[[View, View], Any]


def disk(diameter: int) -> View:
    """Return OpenCV's ellipse of a diameter, at least, that is odd: ``(d, d)`` of 0 and 1."""
    odd = diameter | 1
    drawn: View = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (odd, odd))
    return drawn


def opened(values: View, diameter: int) -> View:
    """Leave of ``(H, W)`` values only what holds a disk; beyond the edges lies whatever fits.

    From a diameter of 13 on this is quicker than ``cv2.morphologyEx``.
    """
    shape = disk(diameter)
    eroded = _by_rectangles(values, shape, cv2.erode, cv2.bitwise_and)
    return _by_rectangles(eroded, shape, cv2.dilate, cv2.bitwise_or)


def _by_rectangles(values: View, shape: View, step: Step, join: Step) -> View:
    """Erode or dilate by a convex shape that is symmetric in both directions.

    The shape is the union of rectangles, from the highest to the widest, and each differs from the
    one before by a few pixels: rows are widened step by step, and what the rectangles so far have
    in common in height is done once for all of them (Horner's scheme).
    """
    widths = shape.sum(axis=1, dtype=int)
    rows, width, height, joined = values, 1, int((widths > 0).sum()), None
    for wider in np.unique(widths).tolist():
        lower = int((widths >= wider).sum())
        rows = step(rows, np.ones((1, wider - width + 1), np.uint8))
        if joined is None:
            joined = rows
        else:
            joined = join(step(joined, np.ones((height - lower + 1, 1), np.uint8)), rows)
        width, height = wider, lower
    result: View = step(rows if joined is None else joined, np.ones((height, 1), np.uint8))
    return result
