"""The marked regions as a structured report by the template TID 1500 (PS3.16), with measurements.

Its coordinates are those of the source image's own pixel grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage, generate_uid

from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import (
    SIDES,
    Encoded,
    Origin,
    drop_image_elements,
    encode,
    marked_words,
    name,
    repeat,
    series,
    source_image,
    stamp,
)
from mamfed_client.prediction.lesions import Lesion, MarkedRegions
from mamfed_client.prediction.polygons import Points, longest_diameter
from mamfed_client.prediction.source_header import Content
from mamfed_common import __version__

NOTICE = "Research use only. Not for diagnosis."
NO_REGION = "No region found."
CONTAINS = RelationshipTypeValues.CONTAINS
MAMMOGRAPHY = Code("71651007", "SCT", "Mammography")
SOURCE = Code("260753009", "SCT", "Source")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
PERCENT = Code("%", "UCUM", "Percent")
SQUARE_MM = Code("mm2", "UCUM", "square millimeter")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
LONGEST = Code("103339001", "SCT", "Long axis")


class _Reference:
    """What the report is about: the image, and the names that follow from it and from the model."""

    def __init__(self, header: Dataset, facts: Facts, origin: Origin) -> None:
        self.image = (str(header.SOPClassUID), str(header.SOPInstanceUID))
        self.facts, self.origin = facts, origin
        self._seed = [*self.image, origin.weights_sha256, f"{origin.threshold:g}"]

    def uid(self, *words: str) -> str:
        return str(generate_uid(entropy_srcs=[*self._seed, *words]))

    def site(self) -> FindingSite:
        return FindingSite(codes.SCT.Breast, laterality=SIDES.get(self.facts.laterality))

    def algorithm(self) -> AlgorithmIdentification:
        return AlgorithmIdentification(
            name="mamfed",
            version=__version__,
            parameters=[f"{key}={value}" for key, value in self.origin.parameters.items()],
        )


def encode_report(
    marked: MarkedRegions,
    polygons: tuple[Points, ...],
    source: Mapping[str, Content],
    facts: Facts,
    origin: Origin,
    segmentation: Dataset | None,
) -> Encoded:
    """Encode the regions of an image, or that it has none, as a Comprehensive SR.

    Args:
        marked: The regions.
        polygons: Their outlines, in pixels of the image.
        source: The result of ``Decoder.source`` for the source image.
        facts: Metadata of the source image.
        origin: The model and threshold.
        segmentation: The header of the segmentation that is written beside it, if any.

    Raises:
        SourceError: The source's header lacks required elements.
    """

    def build(header: Dataset) -> ComprehensiveSR:
        about = _Reference(header, facts, origin)
        image = source_image(header, *marked.mask.shape)
        evidence = [image] if segmentation is None else [image, segmentation]
        return ComprehensiveSR(
            evidence=evidence,
            content=_content(marked, polygons, about, image, segmentation)[0],
            is_complete=True,
            is_final=False,
            specific_character_set="ISO_IR 192",
            **series("report", facts, origin),
        )

    return encode(source, build, _finish)


def _finish(header: Dataset, report: Dataset) -> None:
    """Complete the report from the source's header, and name it."""
    repeat(header, report)
    drop_image_elements(report)
    stamp(report, header, "Content")
    name(report)


def _content(
    marked: MarkedRegions,
    polygons: tuple[Points, ...],
    about: _Reference,
    image: Dataset,
    segmentation: Dataset | None,
) -> MeasurementReport:
    lesions = enumerate(zip(marked.lesions, polygons, strict=True), start=1)
    device = DeviceObserverIdentifyingAttributes(
        uid=str(generate_uid(entropy_srcs=["device", about.origin.weights_sha256])),
        name="mamfed",
        manufacturer_name="mamfed",
        model_name="mamfed-client predict",
        serial_number=about.origin.weights_sha256[:16],
    )
    report = MeasurementReport(
        observation_context=ObservationContext(ObserverContext(codes.DCM.Device, device)),
        procedure_reported=MAMMOGRAPHY,
        imaging_measurements=[
            _of_image(marked, about, segmentation),
            *(_of_lesion(number, *lesion, about) for number, lesion in lesions),
        ],
    )
    report[0].ContentSequence.insert(-1, _library(about, image))
    return report


def _library(about: _Reference, image: Dataset) -> ContainerContentItem:
    """List the image (TID 1600), by whose entry some viewers look it up.

    highdicom's own entry of a mammogram needs elements that many files lack.
    """
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    entry = ImageContentItem(SOURCE, *about.image, relationship_type=CONTAINS)
    side = SIDES.get(about.facts.laterality)
    entry.ContentSequence = ContentSequence(
        [
            CodeContentItem(codes.DCM.Modality, codes.DCM.Mammography, context),
            *([CodeContentItem(codes.DCM.ImageLaterality, side, context)] if side else []),
            NumContentItem(codes.DCM.PixelDataRows, image.Rows, PIXELS, relationship_type=context),
            NumContentItem(
                codes.DCM.PixelDataColumns, image.Columns, PIXELS, relationship_type=context
            ),
        ]
    )
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    group.ContentSequence = ContentSequence([entry])
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _of_image(
    marked: MarkedRegions, about: _Reference, segmentation: Dataset | None
) -> MeasurementsAndQualitativeEvaluations:
    """Say what was found on the whole image: the row that stands even if there is nothing."""
    regions = len(marked.lesions) + marked.left_out
    summary = (
        codes.DCM.AllAlgorithmsSucceededWithFindings
        if regions
        else codes.DCM.AllAlgorithmsSucceededWithoutFindings
    )
    group = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(about.uid("image"), "image"),
        algorithm_id=about.algorithm(),
        finding_sites=[about.site()],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.DCM.CADProcessingAndFindingsSummary, summary)
        ],
        source_images=[SourceImageForMeasurementGroup(*about.image)],
    )
    content = group[0].ContentSequence
    for words in _remarks(marked, regions, about.origin):
        content.append(TextContentItem(codes.DCM.Comment, words, CONTAINS))
    if segmentation is not None and regions:
        content.append(
            ImageContentItem(
                codes.DCM.ReferencedSegment,
                SegmentationStorage,
                segmentation.SOPInstanceUID,
                referenced_segment_numbers=[1],
                relationship_type=CONTAINS,
            )
        )
    return group


def _remarks(marked: MarkedRegions, regions: int, origin: Origin) -> list[str]:
    left_out = f"{marked.left_out} further regions have no outline in this report."
    return [
        *([] if regions else [NO_REGION]),
        f"{marked_words(regions, origin.threshold)}.",
        *([left_out] if marked.left_out else []),
        NOTICE,
    ]


def _of_lesion(
    number: int, lesion: Lesion, polygon: Points, about: _Reference
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    region = ImageRegion(
        GraphicTypeValues.POLYLINE, polygon.astype(np.float32), SourceImageForRegion(*about.image)
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(about.uid("lesion", f"{number}"), f"suspected malignancy {number}"),
        referenced_region=region,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=codes.SCT.Lesion,
        algorithm_id=about.algorithm(),
        finding_sites=[about.site()],
        measurements=_measurements(lesion, polygon, about.facts.spacing_mm),
    )


def _measurements(lesion: Lesion, polygon: Points, spacing_mm: float | None) -> list[Measurement]:
    """Return a region's scores, and its size where the spacing of pixels is known."""
    certainty = codes.DCM.CertaintyOfFinding
    scores = [
        Measurement(certainty, rounded(100 * lesion.score), PERCENT, derivation=codes.SCT.Mean),
        Measurement(certainty, rounded(100 * lesion.peak), PERCENT, derivation=codes.SCT.Maximum),
    ]
    if spacing_mm is None or lesion.area_mm2 is None:
        return scores
    diameter = longest_diameter(polygon) * spacing_mm
    return [
        Measurement(codes.SCT.Area, rounded(lesion.area_mm2), SQUARE_MM),
        Measurement(LONGEST, rounded(diameter), MILLIMETRE),
        *scores,
    ]


def rounded(value: float) -> float:
    """Round to five digits, which a decimal string of 16 characters always holds (PS3.5 6.2)."""
    return float(f"{value:.5g}")
