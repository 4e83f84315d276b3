"""One mammogram as read from a file, whichever format it came in."""

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
"""More than any detector has (5355 x 4915 is the largest seen); guards against hostile headers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of its image. The two identifiers never leave the memory of this process.

    Attributes:
        laterality: Which breast.
        laterality_source: What said so: a DICOM keyword, ``file name`` or ``table``.
        view: ``CC``, ``MLO`` or what else is said, in capitals.
        view_source: What said so.
        spacing_mm: Distance of pixel centres on the detector or film, in millimetres.
        vendor: Who made the unit: one name a known maker, else as the file spells it.
        model: The unit's model, as the file spells it.
        birads: The BI-RADS assessment, as ``4a``.
        patient: The patient's identifier.
        instance: The image's SOP Instance UID (PS3.3 C.12.1).
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
    """A mammogram on its file's own pixel grid and in its file's own orientation.

    Attributes:
        grey: ``(H, W)`` uint16; 0..65535 stands for intensities 0..1, tissue bright.
        valid: ``(H, W)`` bool, false where the file padded; None where all is image.
        facts: What the file says of it.
        doubts: What may be wrong with it, as far as its reader can tell.
    """

    grey: Grey
    valid: Mask | None = None
    facts: Facts = Facts()
    doubts: Doubts = ()

    @property
    def pixels(self) -> Pixels:
        """Intensities as ``(H, W)`` float32 in 0..1, tissue bright."""
        return self.grey * np.float32(1 / FULL_SCALE)
