"""The marked regions as a Mammography CAD SR by the template TID 4000 (PS3.16).

The template is not extensible, and knows masses, calcifications and densities. The network tells
none of them apart, so each region is a *Selected Region*, and no analysis is claimed. What it
shall have and a file does not say (side, view, patient orientation) makes the report impossible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from highdicom.sr import ComprehensiveSR
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import MammographyCADSRStorage

from mamfed_client.imaging.dicom_attributes import VIEW_CODES
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.prediction.derived_object import (
    SIDES,
    Encoded,
    Origin,
    drop_image_elements,
    encode,
    item_of,
    marked_words,
    name,
    repeat,
    series,
    source_image,
    stamp,
)
from mamfed_client.prediction.lesions import Lesion, MarkedRegions
from mamfed_client.prediction.polygons import Points
from mamfed_client.prediction.report import NOTICE, PERCENT, rounded
from mamfed_client.prediction.source_header import Content, SourceError
from mamfed_common import __version__

IMAGE = (1, 2, 1)
"""Where the tree has the image: the first entry of the second item, the Image Library."""
CONTAINS, HAS, MODIFIED, ACQUIRED, INFERRED, SELECTED = (
    "CONTAINS",
    "HAS PROPERTIES",
    "HAS CONCEPT MOD",
    "HAS ACQ CONTEXT",
    "INFERRED FROM",
    "SELECTED FROM",
)
ENGLISH = Code("en", "RFC5646", "English")
MICROMETRE = Code("um", "UCUM", "micrometer")
REGION = codes.DCM.SelectedRegion


def encode_cad_report(
    marked: MarkedRegions,
    polygons: tuple[Points, ...],
    source: Mapping[str, Content],
    facts: Facts,
    origin: Origin,
) -> Encoded:
    """Encode the regions of an image, or that it has none, as a Mammography CAD SR.

    Args:
        marked: The regions.
        polygons: Their outlines, in pixels of the image.
        source: The result of ``Decoder.source`` for the source image.
        facts: Metadata of the source image.
        origin: The model and threshold.

    Raises:
        SourceError: The source's header lacks what the report must have.
    """

    def build(header: Dataset) -> ComprehensiveSR:
        image = _image(header, facts)
        image.ConceptNameCodeSequence = [item_of(codes.DCM.ImageRegion)]  # highdicom wants a name
        library = _item(CONTAINS, "CONTAINER", codes.DCM.ImageLibrary, image)
        return ComprehensiveSR(
            evidence=[source_image(header, *marked.mask.shape)],
            content=_item("", "CONTAINER", codes.DCM.MammographyCADReport, library),
            is_complete=True,
            is_final=False,
            specific_character_set="ISO_IR 192",
            **series("CAD report", facts, origin),
        )

    def finish(header: Dataset, report: Dataset) -> None:
        report.SOPClassUID = MammographyCADSRStorage
        report.file_meta.MediaStorageSOPClassUID = MammographyCADSRStorage
        template = Dataset()
        template.MappingResource, template.TemplateIdentifier = "DCMR", "4000"
        report.ContentTemplateSequence = [template]
        report.ContentSequence = _content(marked, polygons, header, facts, origin)
        repeat(header, report)
        drop_image_elements(report)
        stamp(report, header, "Content")
        name(report)

    return encode(source, build, finish)


def _content(
    marked: MarkedRegions,
    polygons: tuple[Points, ...],
    header: Dataset,
    facts: Facts,
    origin: Origin,
) -> list[Dataset]:
    """Return the items below the root: TID 4000, rows 2 to 9."""
    algorithm = _algorithm(origin)
    performed = _code(
        CONTAINS, codes.DCM.DetectionPerformed, REGION, *algorithm, _reference(INFERRED)
    )
    detections = _item(INFERRED, "CONTAINER", codes.DCM.SuccessfulDetections, performed)
    return [
        _code(MODIFIED, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH),
        _item(CONTAINS, "CONTAINER", codes.DCM.ImageLibrary, _image(header, facts)),
        _impression(marked, polygons, origin),
        _code(CONTAINS, codes.DCM.SummaryOfDetections, codes.DCM.Succeeded, detections),
        _code(CONTAINS, codes.DCM.SummaryOfAnalyses, codes.DCM.NotAttempted),
    ]


def _image(header: Dataset, facts: Facts) -> Dataset:
    """Describe the image (TID 4020)."""
    side, view = SIDES.get(facts.laterality), _view(facts.view)
    orientation = header.get("PatientOrientation") or ()
    if side is None or view is None or len(orientation) != 2:
        raise SourceError("a CAD report needs side, view and patient orientation")
    row, column = (str(direction) for direction in orientation)
    described = [
        _code(ACQUIRED, codes.DCM.ImageLaterality, side),
        _code(ACQUIRED, codes.DCM.ImageView, view),
        _text(ACQUIRED, codes.DCM.PatientOrientationRow, row),
        _text(ACQUIRED, codes.DCM.PatientOrientationColumn, column),
    ]
    if facts.spacing_mm is not None:
        distance = rounded(1000 * facts.spacing_mm)
        for concept in (codes.DCM.HorizontalPixelSpacing, codes.DCM.VerticalPixelSpacing):
            described.append(_number(ACQUIRED, concept, distance, MICROMETRE))
    image = _item(CONTAINS, "IMAGE", None, *described)
    referred = Dataset()
    referred.ReferencedSOPClassUID = header.SOPClassUID
    referred.ReferencedSOPInstanceUID = header.SOPInstanceUID
    image.ReferencedSOPSequence = [referred]
    return image


def _view(view: str | None) -> Code | None:
    known = [getattr(codes.cid4014, word) for word in codes.cid4014.dir()]
    return next((code for code in known if VIEW_CODES.get(code.value, "") == view), None)


def _impression(marked: MarkedRegions, polygons: tuple[Points, ...], origin: Origin) -> Dataset:
    """Say what was found on the image (TID 4001 to 4003)."""
    regions = len(marked.lesions) + marked.left_out
    summary = (
        codes.DCM.AllAlgorithmsSucceededWithFindings
        if regions
        else codes.DCM.AllAlgorithmsSucceededWithoutFindings
    )
    words = f"{NOTICE} {marked_words(regions, origin.threshold)}."
    if marked.left_out:
        words += f" {marked.left_out} further regions have no outline in this report."
    below = [_text(HAS, codes.DCM.ImpressionDescription, words)]
    if regions:
        lesions = enumerate(zip(marked.lesions, polygons, strict=True), start=1)
        findings = [_finding(number, *lesion, origin) for number, lesion in lesions]
        concept = codes.DCM.IndividualImpressionRecommendation
        below.append(_item(INFERRED, "CONTAINER", concept, _intent(), *findings))
    return _code(CONTAINS, codes.DCM.CADProcessingAndFindingsSummary, summary, *below)


def _finding(number: int, lesion: Lesion, polygon: Points, origin: Origin) -> Dataset:
    """Describe a region (TID 4006, with the geometry of TID 4021)."""
    centre = (lesion.centre_column + 0.5, lesion.centre_row + 0.5)
    return _code(
        CONTAINS,
        codes.DCM.SingleImageFinding,
        REGION,
        _intent(),
        *_algorithm(origin),
        _number(HAS, codes.DCM.CertaintyOfFinding, rounded(100 * lesion.score), PERCENT),
        _place(codes.DCM.Center, "POINT", centre),
        _place(codes.DCM.Outline, "POLYLINE", [*chain.from_iterable(polygon.tolist())]),
        _text(HAS, codes.DCM.SelectedRegionDescription, f"suspected malignancy {number}"),
    )


def _algorithm(origin: Origin) -> list[Dataset]:
    """Name the model (TID 4019)."""
    parameters = [f"{key}={value}" for key, value in origin.parameters.items()]
    return [
        _text(MODIFIED, codes.DCM.AlgorithmName, "mamfed"),
        _text(MODIFIED, codes.DCM.AlgorithmVersion, __version__),
        *(_text(MODIFIED, codes.DCM.AlgorithmParameters, words) for words in parameters),
    ]


def _intent() -> Dataset:
    """Leave it to the viewer whether it shows a region."""
    optional = codes.DCM.PresentationOptionalRenderingDeviceMayPresent
    return _code(MODIFIED, codes.DCM.RenderingIntent, optional)


def _item(relation: str, kind: str, concept: Code | None, *below: Dataset) -> Dataset:
    """Build a content item (PS3.3 C.17.3); the root has no relation."""
    item = Dataset()
    item.ValueType = kind
    if relation:
        item.RelationshipType = relation
    if concept is not None:
        item.ConceptNameCodeSequence = [item_of(concept)]
    if kind == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    if below:
        item.ContentSequence = list(below)
    return item


def _code(relation: str, concept: Code, value: Code, *below: Dataset) -> Dataset:
    item = _item(relation, "CODE", concept, *below)
    item.ConceptCodeSequence = [item_of(value)]
    return item


def _text(relation: str, concept: Code, words: str) -> Dataset:
    item = _item(relation, "TEXT", concept)
    item.TextValue = words
    return item


def _number(relation: str, concept: Code, value: float, unit: Code) -> Dataset:
    item, measured = _item(relation, "NUM", concept), Dataset()
    measured.NumericValue = f"{value:g}"
    measured.MeasurementUnitsCodeSequence = [item_of(unit)]
    item.MeasuredValueSequence = [measured]
    return item


def _place(concept: Code, kind: str, columns_and_rows: Sequence[float]) -> Dataset:
    """Build a place in the image, to which the item refers by its position in the tree."""
    item = _item(HAS, "SCOORD", concept, _reference(SELECTED))
    item.GraphicType, item.GraphicData = kind, [float(x) for x in columns_and_rows]
    return item


def _reference(relation: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ReferencedContentItemIdentifier = relation, list(IMAGE)
    return item
