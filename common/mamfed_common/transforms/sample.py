"""One mammogram as the network sees it, whatever file it came from."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FULL_SCALE = 65535
"""Stored grey level of intensity 1."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""


class Sample(NamedTuple):
    """One prepared mammogram: cropped to the breast, oriented, on the plan's square grid.

    Attributes:
        image: ``(S, S)`` uint16, 0..65535 for intensities 0..1; tissue is bright, and pixels
            outside the breast are 0.
        breast_mask: ``(S, S)`` bool, true inside the breast.
        mask: ``(S, S)`` bool, true on malignant findings; all false if there are none.
        name: The site's name for the image. It never leaves the site.
    """

    image: npt.NDArray[np.uint16]
    breast_mask: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.bool_]
    name: str


def window_of(plane: npt.NDArray[np.bool_]) -> Window:
    """Return the smallest window that holds all true pixels of a ``(H, W)`` bool array."""
    left, top, width, height = cv2.boundingRect(plane.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)
