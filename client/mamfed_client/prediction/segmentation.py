"""A marked mammogram as DICOM SEG (PS3.3 A.51), which viewers overlay on its source image.

The segmentation has the source's own pixel grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence, ContentQualificationValues
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import (
    SIDES,
    Encoded,
    Origin,
    check_lossy,
    encode,
    item_of,
    marked_words,
    name,
    repeat,
    series,
    source_image,
    timezone_of,
)
from mamfed_client.prediction.source_header import Content
from mamfed_client.review.show import LESION
from mamfed_common import __version__

Encoding = Literal["binary", "fractional"]

MODIFIERS = (codes.SCT.Suspected, codes.SCT.Malignant)


def encode_segmentation(
    pixels: npt.NDArray[Any],
    source: Mapping[str, Content],
    facts: Facts,
    lesions: int,
    origin: Origin,
) -> Encoded:
    """Encode a segmentation as a DICOM file.

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
    return encode(
        source,
        lambda header: _segmentation(pixels, header, facts, lesions, origin),
        _finish,
    )


def _segmentation(
    pixels: npt.NDArray[Any], header: Dataset, facts: Facts, lesions: int, origin: Origin
) -> Segmentation:
    """Build the object with highdicom; its UIDs and series number are still placeholders."""
    is_binary = pixels.dtype == bool
    kind = SegmentationTypeValues.BINARY if is_binary else SegmentationTypeValues.FRACTIONAL
    now = datetime.now(timezone_of(header))
    return Segmentation(
        source_images=[source_image(header, *pixels.shape)],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[_segment(facts, origin)],
        content_label="SUSPECTED_MALIGN",
        content_description=marked_words(lesions, origin.threshold),
        content_qualification=ContentQualificationValues.RESEARCH,
        content_date=now.date(),
        content_time=now.time(),
        omit_empty_frames=False,
        specific_character_set="ISO_IR 192",
        **series("", facts, origin),
    )


def _finish(header: Dataset, segmentation: Dataset) -> None:
    """Complete the object from the source's header, and name it."""
    repeat(header, segmentation)
    # Type 2C if there is no plane orientation (PS3.3 C.7.6.1); highdicom omits it.
    segmentation.PatientOrientation = header.get("PatientOrientation", "")
    if not header.get("FrameOfReferenceUID"):
        for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
            segmentation.pop(keyword, None)
    elif "PositionReferenceIndicator" not in segmentation:
        segmentation.PositionReferenceIndicator = ""  # Type 2 (C.7.4.1)
    check_lossy(segmentation)
    segmentation.InstanceCreationDate = segmentation.ContentDate
    segmentation.InstanceCreationTime = segmentation.ContentTime
    (organization,) = segmentation.DimensionOrganizationSequence
    name(segmentation, organization, *segmentation.DimensionIndexSequence)


def _segment(facts: Facts, origin: Origin) -> SegmentDescription:
    """Describe the only segment: a suspected malignant lesion of the breast, by this network."""
    algorithm = AlgorithmIdentificationSequence(
        name="mamfed",
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        source="mamfed",
        parameters=origin.parameters,
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
    lesion.SegmentedPropertyTypeModifierCodeSequence = [item_of(code) for code in MODIFIERS]
    if side := SIDES.get(facts.laterality):
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [item_of(side)]
    return segment
