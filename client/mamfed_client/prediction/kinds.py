"""The kinds of DICOM objects that predict writes, by the names that ``--as`` takes."""

from __future__ import annotations

FILES = {
    "seg": "segmentation.dcm",
    "sr": "report.dcm",
    "gsps": "presentation.dcm",
    "sc": "capture.dcm",
    "cad": "cad.dcm",
}
"""Kinds of objects and their file names, in the order in which they are made."""
WORDS = {
    "seg": "segmentation",
    "sr": "structured report",
    "gsps": "presentation state",
    "sc": "secondary capture",
    "cad": "CAD report",
}
DEFAULT = ("seg",)
NEED_DISPLAY = frozenset({"gsps", "sc"})
"""Kinds that need to know how the image is displayed."""
