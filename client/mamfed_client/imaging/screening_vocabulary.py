"""Words, codes and SOP classes that identify images other than screening mammograms."""

from __future__ import annotations

import re
from types import MappingProxyType

from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from mamfed_client.imaging.rejections import Reason

TOMOSYNTHESIS_CLASSES = (
    BreastTomosynthesisImageStorage,
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
)
MAMMOGRAPHIC_CLASSES = (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    *TOMOSYNTHESIS_CLASSES,
)
RADIOGRAPHIC_CLASSES = (
    *MAMMOGRAPHIC_CLASSES,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
"""SOP classes that units have used for breast images; CT slices are rejected as tomosynthesis."""

CODES = MappingProxyType(
    {
        Reason.SPECIMEN: frozenset({"127457009", "G-8310"}),
        Reason.SPOT: frozenset({"399055006", "R-102D7"}),
        Reason.MAGNIFICATION: frozenset({"399163009", "R-102D6"}),
        Reason.IMPLANT_DISPLACED: frozenset({"399209000", "R-102D5"}),
    }
)
"""PS3.16 CID 4014 (specimen) and CID 4015, as SNOMED CT and SRT codes."""

WORDS = MappingProxyType(
    {
        Reason.SPECIMEN: ("specimen",),
        Reason.BIOPSY: ("biopsy", "stereo", "stereotactic", "scout", "prefire", "postfire"),
        Reason.SPOT: ("spot",),
        Reason.MAGNIFICATION: ("magnification", "magnified", "mag"),
        Reason.IMPLANT_DISPLACED: ("implant displaced", "ccid", "mloid", "mlid"),
        Reason.TOMOSYNTHESIS: ("tomosynthesis",),
    }
)
"""Whole words to find in the text elements of an image or series: code meanings of CID 4014 and
4015, image types of PS3.3 C.8.11.7.1.4, and ACR view abbreviations with ID (implant displaced)."""
STEMS = MappingProxyType(
    {
        Reason.SPECIMEN: (
            *("praparat", "praeparat", "preparaat", "especimen"),
            *("piece op", "pezzo op", "pieza op"),
        ),
        Reason.BIOPSY: ("biops", "biopt", "stereota"),
    }
)
"""Word stems that hospitals use in German, Dutch, French, Italian, Spanish and Polish, without
accents; a stem may also occur inside a compound."""
TEXTS = ("SeriesDescription", "ProtocolName", "ViewPosition", "BodyPartExamined")
"""Text elements to search. Study Description is omitted: the study of a biopsy may also contain
plain views of the other breast."""

SYNTHESIZED_TYPES = frozenset({"GENERATED_2D", "TOMO_2D"})
"""Values of (0008,0008) Image Type (PS3.3 C.8.11.7.1.4); some vendors write only a name."""
SYNTHESIZED_WORDS = ("c view", "cview", "s view", "v preview", "insight 2d", "intelligent 2d")
TOMOSYNTHESIS_TYPES = frozenset({"TOMO", "TOMO_PROJ", "TOMOSYNTHESIS", "VOLUME"})
BIOPSY_TYPES = re.compile(
    r"STEREO.*|.*(SCOUT|BIOPSY)|(PRE|POST)_?(FIRE|BIOPSY|MARKER|CLIP).*|SPECIMEN", re.ASCII
)
"""Siemens writes ``STEREO``, Hologic ``STEREO_SCOUT``; the others are from the standard."""
SCOUT_SIDES = (512, 1024)

CAPTURED = frozenset({"DV", "DI", "SD", "WSD", "DRW"})
"""Conversion types (PS3.3 C.8.6.1) of screenshots and documents; DF and SI are film scans."""
CAPTURE_TYPES = frozenset({"SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREENSHOT"})
TEST_OBJECTS = ("phantom", "qc", "quality control", "flat field", "flatfield")
