"""A marked mammogram as DICOM SEG (PS3.3 A.51), which a viewer lays over its source image.

The segmentation has the source's own pixel grid and refers to it pixel by pixel. It names no frame
of reference, even where the source does: a mammogram has no plane position, and viewers that are
given half of a geometry crash on it. One segmentation is one series, as viewers open a series'
first alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence, ContentQualificationValues
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import validate_value

from mamfed_client.mammogram import Facts, Laterality
from mamfed_client.review.show import LESION
from mamfed_common import __version__

Encoding = Literal["binary", "fractional"]

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
"""What the source must tell: without, no viewer finds out what the segmentation is of."""
EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""What has to be there, though perhaps empty (Type 2: PS3.3 C.7.1.1, C.7.2.1)."""
UIDS = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
"""Also with leading zeros, which no standard allows and archives hold."""
ORIENTATION = re.compile(r"[A-Z]{1,4}\\[A-Z]{1,4}")
SERIES_NUMBER = 9000
"""Far from those of the images."""

SIDES: dict[Laterality | None, Code] = {"L": codes.SCT.Left, "R": codes.SCT.Right}
MODIFIERS = (codes.SCT.Suspected, codes.SCT.Malignant)


class Origin(NamedTuple):
    """What made a segmentation.

    Attributes:
        weights_sha256: The weights.
        plan_sha256: The plan of their training.
        threshold: Probability from which a pixel is marked.
    """

    weights_sha256: str
    plan_sha256: str
    threshold: float


class SourceError(Exception):
    """A file's header does not say what a segmentation of it would need; which, in words."""


def encode_segmentation(
    pixels: npt.NDArray[Any],
    source: Mapping[str, str],
    facts: Facts,
    lesions: int,
    origin: Origin,
) -> bytes:
    """Write a segmentation as a DICOM file.

    The same source, weights, threshold and encoding give the same UIDs, so that an archive sees
    that it has the object already.

    Args:
        pixels: ``(H, W)`` on the source's grid: bool for a binary segmentation, or float32
            probabilities in 0..1 for a fractional one (8 bits). All may be 0.
        source: What ``Decoder.source`` says of the source image.
        facts: What is known of the source image.
        lesions: Regions marked.
        origin: What made it.

    Raises:
        SourceError: The source does not say enough of itself.
    """
    sound = {keyword: text for keyword, text in source.items() if _is_sound(keyword, text)}
    if "PatientID" in source.keys() - sound.keys():  # under no other would it be the patient's
        raise SourceError("the header has no sound PatientID")
    try:
        with config.disable_value_validation():  # its warnings quote what they are about
            return _encoded(pixels, sound, facts, lesions, origin)
    except KeyError:
        reason = "the header's SOPClassUID is none that DICOM defines for images"
    except (ValueError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__} while making one of its header"
    raise SourceError(reason)


def _encoded(
    pixels: npt.NDArray[Any],
    sound: Mapping[str, str],
    facts: Facts,
    lesions: int,
    origin: Origin,
) -> bytes:
    image = _source_image(sound, *pixels.shape)
    segmentation = _segmentation(pixels, image, facts, lesions, origin)
    # highdicom quotes a name that looks odd to it in a warning: it is not shown any.
    segmentation.PatientName = sound.get("PatientName", "")
    # Type 2C where there is no plane orientation (PS3.3 C.7.6.1); highdicom leaves it out.
    segmentation.PatientOrientation = image.PatientOrientation
    file = BytesIO()
    segmentation.save_as(file)
    return file.getvalue()


def _segmentation(
    pixels: npt.NDArray[Any], image: Dataset, facts: Facts, lesions: int, origin: Origin
) -> Segmentation:
    """Let highdicom make the object."""
    is_binary = pixels.dtype == bool
    kind = SegmentationTypeValues.BINARY if is_binary else SegmentationTypeValues.FRACTIONAL
    names = (image.SOPInstanceUID, *map(str, origin), kind.value)
    side = " ".join(word for word in (facts.laterality, facts.view) if word)
    return Segmentation(
        source_images=[image],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[_segment(facts, origin)],
        series_instance_uid=generate_uid(entropy_srcs=["series", *names]),
        series_number=SERIES_NUMBER,
        series_description=f"mamfed (research use only): {side}".rstrip(": ")[:64],
        sop_instance_uid=generate_uid(entropy_srcs=["instance", *names]),
        instance_number=1,
        manufacturer="mamfed",
        manufacturer_model_name="mamfed-client predict",
        software_versions=__version__,
        device_serial_number=origin.weights_sha256[:16],
        content_label="SUSPECTED_MALIGN",
        content_description=_described(lesions, origin.threshold),
        content_qualification=ContentQualificationValues.RESEARCH,
        omit_empty_frames=False,
        specific_character_set="ISO_IR 192",
    )


def _source_image(sound: Mapping[str, str], rows: int, columns: int) -> Dataset:
    """Make the header of the source image, but for the patient's name."""
    missing = [keyword for keyword in REQUIRED if keyword not in sound]
    if missing:
        raise SourceError(f"the header has no sound {missing[0]}")
    image = Dataset()
    for keyword in (*EMPTY, "PatientOrientation"):
        setattr(image, keyword, "")
    for keyword, text in sound.items():
        setattr(image, keyword, text)
    image.PatientName = ""
    image.Modality = "MG"
    image.Rows, image.Columns = rows, columns
    return image


def _is_sound(keyword: str, text: str) -> bool:
    """Tell whether a value is one that its element may have (PS3.5 6.2)."""
    if keyword in REQUIRED:
        return UIDS.fullmatch(text) is not None
    if keyword == "PatientOrientation":
        return ORIENTATION.fullmatch(text) is not None
    if keyword == "PatientSex":
        return text in ("M", "F", "O")
    try:
        validate_value(dictionary_VR(keyword), text, config.RAISE)
    except ValueError:
        return False
    return text.isprintable() and "\\" not in text


def _segment(facts: Facts, origin: Origin) -> SegmentDescription:
    """Describe the one segment: suspected malignant lesion, of the breast, by this network."""
    algorithm = AlgorithmIdentificationSequence(
        name="mamfed",
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        source="mamfed",
        parameters={
            "weights_sha256": origin.weights_sha256,
            "plan_sha256": origin.plan_sha256,
            "threshold": f"{origin.threshold:g}",
            "use": "research only",
        },
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Suspected malignancy",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Breast],
        display_color=CIELabColor.from_rgb(*LESION),
    )
    lesion = segment.SegmentedPropertyTypeCodeSequence[0]
    lesion.SegmentedPropertyTypeModifierCodeSequence = [_item(code) for code in MODIFIERS]
    if side := SIDES.get(facts.laterality):
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_item(side)]
    return segment


def _item(code: Code) -> Dataset:
    """Make the item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _described(lesions: int, threshold: float) -> str:
    """Say in at most 64 characters what is marked; nothing is said, too."""
    found = "Nothing" if not lesions else f"{lesions} region{'s' if lesions > 1 else ''}"
    return f"{found} marked at probability {threshold:g} or more"[:64]
