"""Tell how a mask was drawn: as a contour by hand, or as the box or ellipse of a reader's mark.

A box shows where a finding is, not how far it extends. Some data sets distribute ellipses inscribed
in such boxes; an ellipse in the box of a hand-drawn contour has a Dice of about 0.76 with that
contour, so a score against ellipses is not comparable to a score against contours. The kind is
determined from the mask itself, regardless of the data set's documentation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import cv2
import numpy as np

from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Mask

DrawnAs = Literal["outline", "ellipse", "box"]

SMALLEST_SIDE = 16
"""In pixels. A smaller piece could be any of the three kinds."""
STRAY = 1.5
"""Tolerance for the line of a drawn ellipse, in pixels: programs round differently."""
MIN_MASKS = 5
"""With fewer masks no note is given; small findings may well be round."""
FULL = 0.97
"""Share of its bounding box that a piece must fill to count as a box."""


def drawn_as(mask: Mask) -> DrawnAs:
    """Return the kind of the pieces of a mask ``(H, W)``; ``outline`` if the kinds are mixed.

    A circle counts as an ellipse; an ellipse that is rotated against the image axes counts as an
    outline.
    """
    box = Box.around(mask)
    if box is None:
        return "outline"
    mask = np.ascontiguousarray(mask[box.top : box.bottom, box.left : box.right])
    kinds: set[DrawnAs] = set()
    for left, top, width, height in _pieces(mask):
        if min(width, height) >= SMALLEST_SIDE:
            kinds.add(_piece(mask[top : top + height, left : left + width]))
    return kinds.pop() if len(kinds) == 1 else "outline"


def drawn_notes(drawn: Iterable[str]) -> Iterator[str]:
    """Warn if most masks of a data set are not contours.

    Args:
        drawn: The result of :func:`drawn_as` for each mask; empty for images without a mask.
    """
    counts = Counter(kind for kind in drawn if kind)
    marks = counts["ellipse"] + counts["box"]
    if counts.total() >= MIN_MASKS and 2 * marks > counts.total():
        yield (
            f"{marks} of {counts.total()} masks are ellipses or boxes around a finding, not "
            "contours: compare Dice only within this data set, and consider FROC and hits"
        )


def _pieces(mask: Mask) -> Iterator[Sequence[int]]:
    """Yield left, top, width and height of each piece; contours are faster to find than pieces."""
    outlines, nested = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for outline, (_, _, _, parent) in zip(outlines, nested[0], strict=True):
        if parent < 0:  # not a hole
            yield cv2.boundingRect(outline)


def _piece(piece: Mask) -> DrawnAs:
    """Compare a piece, cropped to its bounding box, with the box and its inscribed ellipse.

    The area of a drawn ellipse can differ from the exact one only by the tolerated distance along
    its perimeter, which is shorter than the box's. This test settles most outlines without drawing
    an ellipse.
    """
    area = np.count_nonzero(piece)
    if area >= FULL * piece.size:
        return "box"
    tolerance = (math.pi / 2 * STRAY + 1) * sum(piece.shape) + SMALLEST_SIDE
    if abs(area - math.pi / 4 * piece.size) > tolerance:
        return "outline"
    if (piece & ~_ellipse(piece.shape, STRAY)).any():
        return "outline"
    return "outline" if (_ellipse(piece.shape, -STRAY) & ~piece).any() else "ellipse"


def _ellipse(shape: tuple[int, ...], grown: float) -> Mask:
    """Draw the ellipse inscribed in a box, with both semi-axes longer by ``grown`` pixels."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    down, across = y - (height - 1) / 2, x - (width - 1) / 2
    inside: Mask = (down / (height / 2 + grown)) ** 2 + (across / (width / 2 + grown)) ** 2 <= 1
    return inside
