"""The in-memory representation of a mammogram, independent of its file format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.doubts import Doubts
from mamfed_common.transforms.sample import FULL_SCALE

Grey = npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Laterality = Literal["L", "R"]

MAX_PIXELS = 40_000_000
"""Above the largest known detector (5355 x 4915 pixels); protects against hostile headers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Metadata of a mammogram, taken from its file.

    ``patient`` and ``instance`` identify a person and never leave this process's memory.

    Attributes:
        laterality: Left or right breast.
        laterality_source: Where laterality came from: a DICOM keyword, ``file name`` or ``table``.
        view: The view in upper case, usually ``CC`` or ``MLO``.
        view_source: Where the view came from, as for ``laterality_source``.
        spacing_mm: Distance between pixel centres on the detector or film, in millimetres.
        vendor: Manufacturer: the common name if known, else as the file spells it.
        model: Model name as the file spells it.
        birads: BI-RADS assessment, such as ``4a``.
        patient: Patient identifier.
        instance: SOP Instance UID of the image (PS3.3 C.12.1).
    """

    laterality: Laterality | None = None
    laterality_source: str = ""
    view: str | None = None
    view_source: str = ""
    spacing_mm: float | None = None
    vendor: str | None = None
    model: str | None = None
    birads: str | None = None
    patient: str = field(default="", repr=False)
    instance: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Mammogram:
    """A mammogram on the pixel grid and in the orientation of its file.

    Attributes:
        grey: ``(H, W)`` uint16; 0..65535 represents intensities 0..1, tissue bright.
        valid: ``(H, W)`` bool, false on padding; None if the file has no padding.
        facts: Metadata from the file.
        doubts: Possible problems that the reader noticed.
    """

    grey: Grey
    valid: Mask | None = None
    facts: Facts = Facts()
    doubts: Doubts = ()

    @property
    def pixels(self) -> Pixels:
        """Intensities as ``(H, W)`` float32 in 0..1, tissue bright."""
        return self.grey * np.float32(1 / FULL_SCALE)
