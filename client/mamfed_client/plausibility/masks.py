"""Checks of a mask against its image.

What is measured on 1,234 masks of ten data sets, and on masks made wrong from their images, is in
docs/decisions/0040.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mamfed_client.imaging.doubts import Doubt, Doubtful
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility.pair import Pair

Check = Callable[[Pair], Doubtful | None]

MOST_OF_IMAGE = 0.6
"""Share of the image; 0.39 at most in real masks."""
OUTLINE = 0.85
"""Overlap (IoU) of mask and breast; 0.76 at most in real masks."""
AROUND = 0.9
"""Share of what lies around the breast."""
LARGE = 0.6
"""Share of the breast: above it are 2 of 1,234 real masks, one of them of the whole gland."""
BESIDE = 0.2
"""Share of the mask that lies clearly beside the breast; 0.002 at most in real masks."""
FOLLOWS = 0.85
"""Overlap (IoU) of the mask with what is brighter than some grey level."""
RAGGED, SCATTERED = 0.75, 4
"""Area by convex hull, and pieces on the view: grey levels make ragged or scattered masks. Two of
1,234 real masks follow a level as well, but both in one round piece."""
SPECKS = 100
"""Pieces; 31 at most in real masks."""
HOLLOW = 2.0
"""Area of its holes by its own; 0.15 at most in real masks."""
BOX = 0.95
"""Area by that of its upright box; 0.91 at most in real masks."""
BOX_PIXELS = 25
"""On the view; the corners of smaller pieces cannot be told."""


def check_image_share(pair: Pair) -> None:
    """Refuse a mask that marks most of the image: an inverted one, or one without background."""
    if pair.of_image >= MOST_OF_IMAGE:
        found = f"it marks {pair.of_image:.0%} of the image"
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, f"{found}; is it inverted?")


def check_outline(pair: Pair) -> None:
    """Refuse a mask that is the breast's."""
    breast = pair.look.view.breast
    if np.count_nonzero(pair.core) < OUTLINE * np.count_nonzero(breast):
        return  # the overlap is at most the one by the other
    overlap = np.count_nonzero(pair.core & breast) / np.count_nonzero(pair.core | breast)
    if overlap >= OUTLINE:
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, "it outlines the breast")


def check_surroundings(pair: Pair) -> None:
    """Refuse a mask of what lies around the breast."""
    around = ~pair.look.view.breast
    if around.any() and pair.beside >= 0.5 and pair.shares[around].mean() >= AROUND:
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, "it marks what lies around the breast")


def is_large(pair: Pair) -> Doubtful | None:
    """Doubt a mask that marks much of the breast."""
    if pair.of_breast < LARGE:
        return None
    return Doubtful(Doubt.MASK_LARGE, f"{pair.of_breast:.0%} of the breast")


def is_beside(pair: Pair) -> Doubtful | None:
    """Doubt a mask that lies beside the breast."""
    if pair.beside < BESIDE:
        return None
    return Doubtful(Doubt.MASK_OUTSIDE, f"{pair.beside:.0%} of it")


def follows_levels(pair: Pair) -> Doubtful | None:
    """Doubt a ragged or scattered mask of all that is brighter than some level."""
    if pair.fit < FOLLOWS or not (
        _solidity(pair.solid) < RAGGED or _pieces(pair.solid) >= SCATTERED
    ):
        return None
    return Doubtful(Doubt.MASK_THRESHOLD)


def is_specks(pair: Pair) -> Doubtful | None:
    """Doubt a mask of many more pieces than it was drawn as."""
    if pair.pieces - pair.outlines < SPECKS:
        return None
    return Doubtful(Doubt.MASK_SPECKS, f"{pair.pieces} pieces")


def is_ring(pair: Pair) -> Doubtful | None:
    """Doubt an outline that was not filled."""
    least = HOLLOW * float(pair.shares.sum())
    if np.count_nonzero(~pair.touched) < least:  # all of which would have to be holes
        return None
    holes = np.count_nonzero(_filled(pair.touched) & ~pair.touched)
    return Doubtful(Doubt.MASK_RING) if holes >= least else None


def is_box(pair: Pair) -> Doubtful | None:
    """Doubt a mask whose largest piece is an upright rectangle."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(pair.solid.view(np.uint8))
    if len(stats) < 2:
        return None
    _, _, width, height, area = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    upright = area >= BOX_PIXELS and area >= BOX * width * height
    return Doubtful(Doubt.MASK_BOX) if upright else None


def _outlines(flags: Mask) -> list[np.ndarray]:
    found, _ = cv2.findContours(flags.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return list(found)


def _pieces(flags: Mask) -> int:
    return cv2.connectedComponents(flags.view(np.uint8))[0] - 1


def _solidity(flags: Mask) -> float:
    """Compare the largest piece with its convex hull; 1 where it is too small to tell."""
    largest = max(_outlines(flags), key=cv2.contourArea, default=None)
    if largest is None or not (hull := cv2.contourArea(cv2.convexHull(largest))):
        return 1.0
    return cv2.contourArea(largest) / hull


def _filled(flags: Mask) -> Mask:
    filled = np.zeros(flags.shape, np.uint8)
    cv2.drawContours(filled, _outlines(flags), -1, 1, cv2.FILLED)
    return filled.view(np.bool_)


REFUSALS: tuple[Callable[[Pair], None], ...] = (
    check_image_share,
    check_outline,
    check_surroundings,
)
CHECKS: tuple[Check, ...] = (is_large, is_beside, follows_levels, is_specks, is_ring, is_box)
