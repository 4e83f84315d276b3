"""Read outlines from DICOM objects, choosing the reader by SOP Class."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.uid import MammographyCADSRStorage, SegmentationStorage

from mamfed_client.annotations import dicom_mask, presentation, segmentation
from mamfed_client.annotations.outlines import Outlines, unreadable
from mamfed_client.annotations.references import TargetImage

PRESENTATION_STATES = "1.2.840.10008.5.1.4.1.1.11."
REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""The roots of all Softcopy Presentation State and Structured Report classes (PS3.6 table A-1)."""


def read(data: bytes, image: TargetImage) -> Outlines:
    """Read a segmentation, a presentation state, a structured report or a mask image.

    Raises:
        FileRejected: The file is corrupt, or none of them.
    """
    dataset = dicom_mask.parse(data)
    return _reader(str(dataset.get("SOPClassUID", "")))(dataset, image)


def _reader(sop_class: str) -> Callable[[Dataset, TargetImage], Outlines]:
    if sop_class == SegmentationStorage:
        return segmentation.read
    if sop_class.startswith(PRESENTATION_STATES):
        return presentation.read_graphics
    if sop_class == MammographyCADSRStorage:
        raise unreadable("marks of computer-aided detection, which no reader has confirmed")
    if sop_class.startswith(REPORTS):
        return presentation.read_report
    return dicom_mask.read
