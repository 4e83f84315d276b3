"""A marked mammogram as DICOM SEG (PS3.3 A.51), which viewers overlay on its source image.

The segmentation has the source's own pixel grid. It repeats the elements of the source's header
that :mod:`mamfed_client.imaging.derived_header` lists. Each segmentation is its own series, because
viewers open only the first of a series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
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
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from mamfed_client.imaging.derived_header import REFERRED, REPEATED
from mamfed_client.imaging.mammogram import Facts, Laterality
from mamfed_client.prediction.source_header import Content, SourceError, sound_header
from mamfed_client.review.show import LESION
from mamfed_common import __version__

Encoding = Literal["binary", "fractional"]

EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Elements that must be present but may be empty (Type 2: PS3.3 C.7.1.1, C.7.2.1)."""
SERIES_NUMBERS = range(10_000, 1_000_000_000)
"""Well above the images' series numbers; every viewer can show nine digits."""
MOMENTS = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime")
"""When an object was written, which is not part of its content."""

SIDES: dict[Laterality | None, Code] = {"L": codes.SCT.Left, "R": codes.SCT.Right}
MODIFIERS = (codes.SCT.Suspected, codes.SCT.Malignant)


class Origin(NamedTuple):
    """The model and threshold behind a segmentation.

    Attributes:
        weights_sha256: SHA-256 of the weights.
        plan_sha256: SHA-256 of the training plan.
        threshold: Lowest probability at which a pixel is marked.
    """

    weights_sha256: str
    plan_sha256: str
    threshold: float


class Encoded(NamedTuple):
    """An encoded segmentation.

    Attributes:
        data: The DICOM file.
        left_out: Reasons why elements of the source's header were not repeated, by keyword.
    """

    data: bytes
    left_out: dict[str, str]


def encode_segmentation(
    pixels: npt.NDArray[Any],
    source: Mapping[str, Content],
    facts: Facts,
    lesions: int,
    origin: Origin,
) -> Encoded:
    """Encode a segmentation as a DICOM file.

    Its UIDs are derived from its pixels and header, but not from the time of writing: an archive
    recognises an identical object, and never confuses it with a different one.

    Args:
        pixels: ``(H, W)`` on the source's grid: bool for a binary segmentation, or float32
            probabilities in 0..1 for a fractional one (8 bits). All may be 0.
        source: The result of ``Decoder.source`` for the source image.
        facts: Metadata of the source image.
        lesions: Number of marked regions.
        origin: The model and threshold.

    Raises:
        SourceError: The source's header lacks required elements.
    """
    try:
        with config.disable_value_validation():  # its warnings would quote patient data
            header = sound_header(source)
            segmentation = _segmentation(pixels, header.elements, facts, lesions, origin)
            _repeat(header.elements, segmentation)
            segmentation.InstanceCreationDate = segmentation.ContentDate
            segmentation.InstanceCreationTime = segmentation.ContentTime
            _name(segmentation)
            return Encoded(_written(segmentation), header.left_out)
    except KeyError:
        reason = "the header's SOPClassUID is none that DICOM defines for images"
    except (ValueError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__} while making one of its header"
    raise SourceError(reason)


def _segmentation(
    pixels: npt.NDArray[Any], header: Dataset, facts: Facts, lesions: int, origin: Origin
) -> Segmentation:
    """Build the object with highdicom; its UIDs and series number are still placeholders."""
    is_binary = pixels.dtype == bool
    kind = SegmentationTypeValues.BINARY if is_binary else SegmentationTypeValues.FRACTIONAL
    side = " ".join(word for word in (facts.laterality, facts.view) if word)
    now = datetime.now(_timezone(header))
    return Segmentation(
        source_images=[_source_image(header, *pixels.shape)],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[_segment(facts, origin)],
        series_instance_uid=UNNAMED,
        series_number=SERIES_NUMBERS.start,
        series_description=f"mamfed (research use only): {side}".rstrip(": ")[:64],
        sop_instance_uid=UNNAMED,
        instance_number=1,
        manufacturer="mamfed",
        manufacturer_model_name="mamfed-client predict",
        software_versions=__version__,
        device_serial_number=origin.weights_sha256[:16],
        content_label="SUSPECTED_MALIGN",
        content_description=_described(lesions, origin.threshold),
        content_qualification=ContentQualificationValues.RESEARCH,
        content_date=now.date(),
        content_time=now.time(),
        omit_empty_frames=False,
        specific_character_set="ISO_IR 192",
    )


def _source_image(header: Dataset, rows: int, columns: int) -> Dataset:
    """Build the source header that highdicom needs, without names, as its warnings quote them.

    The elements that highdicom would copy are repeated afterwards from our own table.
    """
    image = Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, "")
    for keyword in (*REFERRED, "StudyInstanceUID"):
        if keyword in header:
            image[keyword] = header[keyword]
    image.Modality = "MG"
    image.Rows, image.Columns = rows, columns
    return image


def _repeat(header: Dataset, segmentation: Dataset) -> None:
    """Copy the source's elements into the object."""
    for keyword in REPEATED:
        if keyword in header:
            segmentation[keyword] = header[keyword]
    # Type 2C if there is no plane orientation (PS3.3 C.7.6.1); highdicom omits it.
    segmentation.PatientOrientation = header.get("PatientOrientation", "")
    if not header.get("FrameOfReferenceUID"):
        for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
            segmentation.pop(keyword, None)
    elif "PositionReferenceIndicator" not in segmentation:
        segmentation.PositionReferenceIndicator = ""  # Type 2 (C.7.4.1)
    if segmentation.get("LossyImageCompression") != "01":  # Type 1 (C.8.20.2)
        segmentation.LossyImageCompression = "00"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            segmentation.pop(keyword, None)


UNNAMED = "2.25.0"
"""Placeholder for a UID that is not known yet."""


def _name(segmentation: Dataset) -> None:
    """Derive the object's UIDs and series number from its content."""
    (organization,) = segmentation.DimensionOrganizationSequence
    dimensions = [organization, *segmentation.DimensionIndexSequence]
    for item in dimensions:  # highdicom draws a random one
        item.DimensionOrganizationUID = UNNAMED
    for item in segmentation.ContributingEquipmentSequence:
        item.pop("ContributionDateTime", None)
    moments = {keyword: segmentation[keyword] for keyword in MOMENTS}
    for keyword in MOMENTS:
        del segmentation[keyword]
    content = hashlib.sha256(_written(segmentation)).hexdigest()
    for element in moments.values():
        segmentation.add(element)
    for item in dimensions:
        item.DimensionOrganizationUID = generate_uid(entropy_srcs=["dimensions", content])
    segmentation.SeriesInstanceUID = generate_uid(entropy_srcs=["series", content])
    segmentation.SOPInstanceUID = generate_uid(entropy_srcs=["instance", content])
    segmentation.file_meta.MediaStorageSOPInstanceUID = segmentation.SOPInstanceUID
    segmentation.SeriesNumber = SERIES_NUMBERS[int(content[:16], 16) % len(SERIES_NUMBERS)]


def _written(segmentation: Dataset) -> bytes:
    file = BytesIO()
    segmentation.save_as(file)
    return file.getvalue()


def _timezone(header: Dataset) -> timezone | None:
    """Return the time zone of all times in the object (PS3.3 C.12.1); None if there is none."""
    offset = header.get("TimezoneOffsetFromUTC", "")
    if not offset:
        return None
    hours, minutes = int(offset[:3]), int(offset[0] + offset[3:])
    return timezone(timedelta(hours=hours, minutes=minutes))


def _segment(facts: Facts, origin: Origin) -> SegmentDescription:
    """Describe the only segment: a suspected malignant lesion of the breast, by this network."""
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
    """Build the item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _described(lesions: int, threshold: float) -> str:
    """Describe in at most 64 characters what is marked, or that nothing is."""
    found = "Nothing" if not lesions else f"{lesions} region{'s' if lesions > 1 else ''}"
    return f"{found} marked at probability {threshold:g} or more"[:64]
