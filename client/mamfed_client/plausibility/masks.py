"""Checks of a mask against its image.

The thresholds come from 1,234 masks of ten data sets, and from wrong masks derived from their
images; see docs/decisions/0040.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mamfed_client.imaging.doubts import Doubt, Doubtful
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility.mask_features import MaskFeatures

Check = Callable[[MaskFeatures], Doubtful | None]

MOST_OF_IMAGE = 0.6
"""Marked share of the image; the maximum in real masks is 0.39."""
OUTLINE = 0.85
"""Overlap (IoU) of mask and breast; the maximum in real masks is 0.76."""
AROUND = 0.9
"""Marked share of the background."""
LARGE = 0.6
"""Marked share of the breast; 2 of 1,234 real masks exceed it, one of them of the whole gland."""
BESIDE = 0.2
"""Share of the mask clearly outside the breast; the maximum in real masks is 0.002."""
FOLLOWS = 0.85
"""Overlap (IoU) of the mask with a threshold of the grey levels."""
RAGGED, SCATTERED = 0.75, 4
"""Area divided by that of the convex hull, and number of pieces on the view: thresholds produce
ragged or scattered masks. Two of 1,234 real masks also follow a threshold, but as one round piece.
"""
SPECKS = 100
"""Number of pieces; the maximum in real masks is 31."""
HOLLOW = 2.0
"""Area of the holes divided by that of the mask; the maximum in real masks is 0.15."""
BOX = 0.95
"""Area divided by that of the upright bounding box; the maximum in real masks is 0.91."""
BOX_PIXELS = 25
"""Minimum area in pixels of the view; smaller pieces have no recognisable corners."""


def check_image_share(mask: MaskFeatures) -> None:
    """Reject a mask that marks most of the image, because it is inverted or has no background."""
    if mask.of_image >= MOST_OF_IMAGE:
        detail = f"it marks {mask.of_image:.0%} of the image; is it inverted?"
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, detail)


def check_outline(mask: MaskFeatures) -> None:
    """Reject a mask of the breast itself."""
    breast = mask.analysis.view.breast
    if np.count_nonzero(mask.core) < OUTLINE * np.count_nonzero(breast):
        return  # the overlap cannot exceed the ratio of the areas
    overlap = np.count_nonzero(mask.core & breast) / np.count_nonzero(mask.core | breast)
    if overlap >= OUTLINE:
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, "it outlines the breast")


def check_surroundings(mask: MaskFeatures) -> None:
    """Reject a mask of the background around the breast."""
    around = ~mask.analysis.view.breast
    if around.any() and mask.beside >= 0.5 and mask.shares[around].mean() >= AROUND:
        raise FileRejected(Reason.IMPLAUSIBLE_MASK, "it marks what lies around the breast")


def is_large(mask: MaskFeatures) -> Doubtful | None:
    """Doubt a mask that covers much of the breast."""
    if mask.of_breast < LARGE:
        return None
    return Doubtful(Doubt.MASK_LARGE, f"{mask.of_breast:.0%} of the breast")


def is_beside(mask: MaskFeatures) -> Doubtful | None:
    """Doubt a mask of which a notable part lies outside the breast."""
    if mask.beside < BESIDE:
        return None
    return Doubtful(Doubt.MASK_OUTSIDE, f"{mask.beside:.0%} of it")


def follows_levels(mask: MaskFeatures) -> Doubtful | None:
    """Doubt a ragged or scattered mask that is a threshold of the grey levels."""
    if mask.fit < FOLLOWS or not (
        _solidity(mask.solid) < RAGGED or _pieces(mask.solid) >= SCATTERED
    ):
        return None
    return Doubtful(Doubt.MASK_THRESHOLD)


def is_specks(mask: MaskFeatures) -> Doubtful | None:
    """Doubt a mask with many more pieces than outlines it was drawn from."""
    if mask.pieces - mask.outlines < SPECKS:
        return None
    return Doubtful(Doubt.MASK_SPECKS, f"{mask.pieces} pieces")


def is_ring(mask: MaskFeatures) -> Doubtful | None:
    """Doubt an outline that was not filled."""
    min_holes = HOLLOW * float(mask.shares.sum())
    if np.count_nonzero(~mask.touched) < min_holes:  # not enough, even if all were holes
        return None
    holes = np.count_nonzero(_filled(mask.touched) & ~mask.touched)
    return Doubtful(Doubt.MASK_RING) if holes >= min_holes else None


def is_box(mask: MaskFeatures) -> Doubtful | None:
    """Doubt a mask whose largest piece is an upright rectangle."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.solid.view(np.uint8))
    if len(stats) < 2:
        return None
    _, _, width, height, area = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    upright = area >= BOX_PIXELS and area >= BOX * width * height
    return Doubtful(Doubt.MASK_BOX) if upright else None


def _outlines(flags: Mask) -> list[np.ndarray]:
    contours, _ = cv2.findContours(flags.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return list(contours)


def _pieces(flags: Mask) -> int:
    return cv2.connectedComponents(flags.view(np.uint8))[0] - 1


def _solidity(flags: Mask) -> float:
    """Return the largest piece's area divided by its convex hull's; 1 if it is too small."""
    largest = max(_outlines(flags), key=cv2.contourArea, default=None)
    if largest is None or not (hull := cv2.contourArea(cv2.convexHull(largest))):
        return 1.0
    return cv2.contourArea(largest) / hull


def _filled(flags: Mask) -> Mask:
    filled = np.zeros(flags.shape, np.uint8)
    cv2.drawContours(filled, _outlines(flags), -1, 1, cv2.FILLED)
    return filled.view(np.bool_)


CERTAIN_CHECKS: tuple[Callable[[MaskFeatures], None], ...] = (
    check_image_share,
    check_outline,
    check_surroundings,
)
CHECKS: tuple[Check, ...] = (is_large, is_beside, follows_levels, is_specks, is_ring, is_box)
