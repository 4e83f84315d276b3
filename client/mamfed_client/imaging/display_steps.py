"""How stored values become grey levels, in the terms of a presentation state (PS3.3 A.33.1).

A presentation state replaces every transformation of its image, so it needs all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.imaging.dicom_header import numbers
from mamfed_client.imaging.lookup_tables import Levels
from mamfed_client.imaging.mammogram import Mask
from mamfed_common.transforms.sample import FULL_SCALE

FUNCTIONS = ("SIGMOID", "LINEAR_EXACT")
"""Values of VOI LUT Function (0028,1056) besides the default, LINEAR."""
MOST_ENTRIES = 65536
MAX_ASPECT = 10.0
SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""Elements that state a pixel's height and then its width, the most reliable first."""


class Window(NamedTuple):
    """A window (PS3.3 C.11.2.1.2).

    Attributes:
        centre: Window Center (0028,1050).
        width: Window Width (0028,1051).
        function: VOI LUT Function (0028,1056); empty for LINEAR.
    """

    centre: float
    width: float
    function: str

    @classmethod
    def between(cls, low: float, high: float) -> Window:
        """Return the LINEAR window that shows ``low`` as black and ``high`` as white."""
        return cls((low + high + 1) / 2, high - low + 1, "")


class Transformed(NamedTuple):
    """Levels in 0..1 after a VOI transformation, and the window that made them; None for a LUT."""

    levels: Levels
    window: Window | None


class DisplaySteps(NamedTuple):
    """The steps from stored values to grey levels: a rescale and a window, or one table.

    Attributes:
        slope: Rescale Slope (0028,1053).
        intercept: Rescale Intercept (0028,1052).
        window: The window; None if ``table`` replaces it.
        table: ``(n,)`` uint16 by rescaled value, from 0; empty if ``window`` is set.
        inverted: Whether black and white are swapped at the end.
    """

    slope: float
    intercept: float
    window: Window | None
    table: npt.NDArray[np.uint16]
    inverted: bool


def steps_of(
    values: npt.NDArray[Any],
    shown: Transformed,
    in_use: Mask,
    rescale: tuple[float, float] | None,
    *,
    inverted: bool,
) -> DisplaySteps:
    """Return the steps; a LUT of the file becomes one table over the stored values in use.

    Args:
        values: ``(n,)`` all stored values.
        shown: Their ``(n,)`` levels, before any inversion.
        in_use: ``(n,)`` bool, true for values in the image's range.
        rescale: Slope and intercept; None for a modality LUT.
        inverted: Whether black and white are swapped.
    """
    window = shown.window
    if rescale is not None and window is not None:
        function = window.function if window.function in FUNCTIONS else ""
        no_table = np.empty(0, np.uint16)
        return DisplaySteps(*rescale, window._replace(function=function), no_table, inverted)
    order = np.argsort(values[in_use], kind="stable")
    table = np.rint(shown.levels[in_use][order] * FULL_SCALE).astype(np.uint16)
    return DisplaySteps(1.0, -float(values[in_use].min()), None, table, inverted)


def pixel_shape(dataset: Dataset) -> tuple[float, float]:
    """Return a pixel's height and width in any unit; equal if the file does not say it."""
    for keyword in SPACINGS:
        shape = numbers(dataset, keyword)
        if len(shape) == 2 and min(shape) > 0 and max(shape) / min(shape) <= MAX_ASPECT:
            return shape[0], shape[1]
    return 1.0, 1.0
