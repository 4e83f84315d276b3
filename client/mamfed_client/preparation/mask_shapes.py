"""How a mask was drawn: by hand, or as the box or ellipse of a reader's mark.

A box says where a finding is, not how far it reaches. Data sets hand out ellipses in such boxes,
too; one in the box of a hand-drawn contour has a Dice of some 0.76 with it, so a score against
them is no score against contours. What a mask is says itself, whatever its data set's notes say.
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
"""A smaller piece could be any of these, in pixels."""
STRAY = 1.5
"""How far a drawn ellipse strays from the true one, in pixels: programs round differently."""
FEWEST = 5
"""Of fewer masks nothing is said; small findings may well be round."""
FULL = 0.97
"""Share of its box that a box fills."""


def drawn_as(mask: Mask) -> DrawnAs:
    """Say what the pieces of a mask ``(H, W)`` are; of pieces of several kinds, ``outline``.

    A circle is an ellipse; an ellipse that is turned against the image's sides is an outline.
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
    """Say where most masks of a data set, by what they are drawn as, are no contours."""
    counts = Counter(kind for kind in drawn if kind)
    marks = counts["ellipse"] + counts["box"]
    if counts.total() >= FEWEST and 2 * marks > counts.total():
        yield (
            f"{marks} of {counts.total()} masks are ellipses or boxes around a finding, no "
            "contours: compare Dice within this data set only, and look at FROC and hits"
        )


def _pieces(mask: Mask) -> Iterator[Sequence[int]]:
    """Yield left, top, width and height of each piece; outlines are quicker found than pieces."""
    found, nested = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for outline, (_, _, _, around) in zip(found, nested[0], strict=True):
        if around < 0:  # no hole
            yield cv2.boundingRect(outline)


def _piece(piece: Mask) -> DrawnAs:
    """Compare a piece, cut out along its sides, with its box and the ellipse in it.

    A drawn ellipse has the true one's area but for what it strays along its line, which is shorter
    than the box's: most outlines need no ellipse to be told by.
    """
    area = np.count_nonzero(piece)
    if area >= FULL * piece.size:
        return "box"
    strayed = (math.pi / 2 * STRAY + 1) * sum(piece.shape) + SMALLEST_SIDE
    if abs(area - math.pi / 4 * piece.size) > strayed:
        return "outline"
    if (piece & ~_ellipse(piece.shape, STRAY)).any():
        return "outline"
    return "outline" if (_ellipse(piece.shape, -STRAY) & ~piece).any() else "ellipse"


def _ellipse(shape: tuple[int, ...], grown: float) -> Mask:
    """Draw the ellipse in a box, each of its half axes longer by some pixels."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    down, across = y - (height - 1) / 2, x - (width - 1) / 2
    inside: Mask = (down / (height / 2 + grown)) ** 2 + (across / (width / 2 + grown)) ** 2 <= 1
    return inside
