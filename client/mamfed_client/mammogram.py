"""One mammogram as read from a file, whichever format it came in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Laterality = Literal["L", "R"]

MAX_PIXELS = 40_000_000
"""More than any detector has (5355 x 4915 is the largest seen); guards against hostile headers."""


@dataclass(frozen=True, slots=True)
class Mammogram:
    """A mammogram in its file's own orientation.

    Attributes:
        pixels: ``(H, W)`` float32 in 0..1, tissue bright.
        laterality: Which breast, if the file says so.
        view: ``CC``, ``MLO`` or what else the file says, in capitals.
        spacing_mm: Distance of pixel centres on the detector or film, in millimetres.
        vendor: Who made the unit, as the file spells it.
    """

    pixels: Pixels
    laterality: Laterality | None = None
    view: str | None = None
    spacing_mm: float | None = None
    vendor: str | None = None
