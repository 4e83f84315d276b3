"""One image: the input of the network, and the files and record made from its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.derived_header import Header
from mamfed_client.imaging.dicom_attributes import CBIS_PATIENT
from mamfed_client.imaging.geometry import Transform
from mamfed_client.imaging.mammogram import Facts, Grey, Pixels
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.raster import SUFFIXES
from mamfed_client.prediction.lesions import Lesion, MarkedRegions, mark
from mamfed_client.prediction.model import NOTICE, LoadedModel
from mamfed_client.prediction.pictures import (
    draw_difference,
    draw_labels,
    draw_outlines,
    draw_square,
    hung_frame,
    to_jpeg,
    to_png,
    whole_frame,
)
from mamfed_client.prediction.segmentation import (
    Encoded,
    Encoding,
    Origin,
    encode_segmentation,
)
from mamfed_client.prediction.source_header import SourceError
from mamfed_client.prediction.sources import Source
from mamfed_client.preparation.prepare_row import table_first
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.training.inference import Prediction
from mamfed_common.transforms.sample import Sample

MARKED, HEALTHY = "overlay", "healthy"
RECONSTRUCTION, DIFFERENCE = "reconstruction", "difference"
ON_PAGE = "page-"
"""Prefix of the pictures shown on the study's page."""
SEGMENTATION = "segmentation.dcm"
NO_HEADER = "a picture has no DICOM header to refer to"
PREPARED = "a prepared sample has no DICOM header to refer to; name the original file"


class View(NamedTuple):
    """An image as the network sees it, with its metadata.

    Attributes:
        identity: Pseudonym derived from its content.
        source: The input that it comes from.
        sample: Its sample.
        transform: The mapping from the file's grid to the sample's.
        grey: ``(H, W)`` uint16 on the file's grid; for a prepared sample, restored from the sample.
        facts: Metadata from table and file.
        header: The result of ``Decoder.source``; None if there is no DICOM file.
        study: Pseudonym of the study, which is shown on one page.
        whose: Pseudonyms of attributes that all images of a study must share.
        patient: The patient's number from table or file; it is stored only if the site's policy
            allows it.
    """

    identity: str
    source: Source
    sample: Sample
    transform: Transform
    grey: Grey
    facts: Facts
    header: Header | None
    study: str
    whose: dict[str, str]
    patient: str


class Answer(NamedTuple):
    """The results for an image: files by name, and their record."""

    files: dict[str, bytes]
    record: dict[str, Any]


def view_of(source: Source, identity: str, size: int, decoder: Decoder, secret: bytes) -> View:
    """Read an image and prepare it as for training.

    Raises:
        DataError: It cannot be used.
        MamfedError: The sandbox does not start.
    """
    if source.entry is not None:
        return _prepared_view(source, identity, secret)
    row = source.row
    mammogram, _ = decoder.mammogram(row.image_path, row.allow)
    mammogram = replace(mammogram, facts=table_first(row, mammogram.facts))
    sample, transform = prepare(mammogram, None, size, source.name)
    header = None
    if row.image_path.suffix.lower() not in SUFFIXES:
        header = decoder.source(row.image_path)
    return View(
        identity,
        source,
        sample,
        transform,
        mammogram.grey,
        mammogram.facts,
        header,
        pseudonym(secret, "study", *_study(source, mammogram.facts, header, identity)),
        _whose(row, mammogram.facts, header, secret),
        _patient(row, mammogram.facts, header),
    )


def _study(source: Source, facts: Facts, header: Header | None, identity: str) -> tuple[str, ...]:
    """Return what identifies an image's study.

    A Patient ID does not distinguish studies, because anonymisers may give everybody the same one.
    It is used only if there is no study UID, or if a collection gives every image its own.
    """
    study = _text(header, "StudyInstanceUID")
    alone = source.lone_studies or CBIS_PATIENT.match(_text(header, "PatientID"))
    if study and not alone:
        return "uid", study
    patient = source.row.patient_id or facts.patient
    if patient:
        return patient, _text(header, "StudyDate")
    return (study or identity,)


def _text(header: Header | None, keyword: str) -> str:
    content = (header or {}).get(keyword)
    return content if isinstance(content, str) else ""


def _whose(row: Row, facts: Facts, header: Header | None, secret: bytes) -> dict[str, str]:
    """Return pseudonyms of what images of a study must share; empty for missing attributes."""
    attributes = {
        "id": _patient(row, facts, header),
        "issuer": _text(header, "IssuerOfPatientID"),
        "birth_date": _text(header, "PatientBirthDate"),
        "sex": _text(header, "PatientSex"),
    }
    return {key: pseudonym(secret, key, text) if text else "" for key, text in attributes.items()}


def _patient(row: Row, facts: Facts, header: Header | None) -> str:
    """Return the patient's number; empty if unknown."""
    patient_id = _text(header, "PatientID")
    return (row.patient_id or facts.patient if CBIS_PATIENT.match(patient_id) else patient_id) or ""


def _prepared_view(source: Source, identity: str, secret: bytes) -> View:
    assert source.entry is not None
    assert source.outcome is not None
    sample, transform = source.entry.load(source.name), source.entry.transform()
    outcome = source.outcome
    facts = Facts(
        laterality=outcome.laterality,
        laterality_source=outcome.laterality_source,
        view=outcome.view,
        view_source=outcome.view_source,
        spacing_mm=outcome.spacing_mm,
        vendor=outcome.vendor,
    )
    grey = transform.invert(sample.image).astype("uint16")
    study = pseudonym(secret, "study", source.row.patient_id, "")
    whose = _whose(source.row, facts, None, secret)
    patient = _patient(source.row, facts, None)
    return View(identity, source, sample, transform, grey, facts, None, study, whose, patient)


def answer(view: View, prediction: Prediction, model: LoadedModel, encoding: Encoding) -> Answer:
    """Return the files and the record of the network's prediction for an image."""
    probability = view.transform.invert(prediction.malignancy)
    marked = mark(probability, model.threshold, view.facts.spacing_mm)
    files, shown_at = pictures_of(view, prediction, marked)
    segmentation, why_not = segmentation_of(view, marked, probability, model, encoding)
    if segmentation is not None:
        files[SEGMENTATION] = segmentation.data
    record = {
        **_image(view),
        **_findings(probability, marked, view.facts),
        "model": model.to_json(),
        "segmentation": None if segmentation is None else SEGMENTATION,
        "segmentation_missing": why_not,
        "header_left_out": {} if segmentation is None else segmentation.left_out,
        "pictures": sorted(name for name in files if name != SEGMENTATION),
        "difference_shown_at_full_colour": shown_at,
        "notice": NOTICE,
    }
    return Answer(files, record)


def pictures_of(
    view: View, prediction: Prediction, marked: MarkedRegions
) -> tuple[dict[str, bytes], float | None]:
    """Draw the whole image as PNG files, and the breast as JPEG files for the study's page.

    Returns:
        The files, and the difference shown at full colour; None without a reconstruction.
    """
    drawn = {MARKED: draw_outlines(view.grey, marked.mask)}
    shown_at = None
    if prediction.healthy is not None:
        drawn[HEALTHY] = draw_square(prediction.healthy, view.transform)
    if prediction.reconstruction is not None:
        drawn[RECONSTRUCTION] = draw_square(prediction.reconstruction, view.transform)
        drawn[DIFFERENCE], shown_at = draw_difference(
            view.sample, prediction.reconstruction, view.transform
        )
    frame = hung_frame(view.transform, view.facts.laterality)
    on_page = {
        name: frame.show(picture, (view.transform.rows, view.transform.columns))
        for name, picture in drawn.items()
    }
    draw_labels(drawn[MARKED], marked.lesions, whole_frame(view.grey.shape))
    draw_labels(on_page[MARKED], marked.lesions, frame)
    files = {f"{name}.png": to_png(picture) for name, picture in drawn.items()}
    files |= {f"{ON_PAGE}{name}.jpg": to_jpeg(picture) for name, picture in on_page.items()}
    return files, shown_at


def segmentation_of(
    view: View, marked: MarkedRegions, probability: Pixels, model: LoadedModel, encoding: Encoding
) -> tuple[Encoded | None, str]:
    """Return the DICOM segmentation, or None and the reason."""
    if view.header is None:
        return None, PREPARED if view.source.entry is not None else NO_HEADER
    pixels = marked.mask if encoding == "binary" else probability
    origin = Origin(model.facts.weights_sha256, model.facts.plan_sha256, model.threshold)
    regions = len(marked.lesions) + marked.left_out
    try:
        return encode_segmentation(pixels, view.header, view.facts, regions, origin), ""
    except SourceError as error:
        return None, str(error)


def _image(view: View) -> dict[str, Any]:
    """Return the record's entries on the image and its geometry."""
    facts, transform = view.facts, view.transform
    return {
        "image": view.identity,
        "source": view.source.name,
        "study": view.study,
        "whose": view.whose,
        "laterality": facts.laterality,
        "laterality_from": facts.laterality_source,
        "view": facts.view,
        "view_from": facts.view_source,
        "vendor": facts.vendor,
        "rows": transform.rows,
        "columns": transform.columns,
        "spacing_mm": facts.spacing_mm,
        "breast_box": [transform.top, transform.bottom, transform.left, transform.right],
        "chest_wall": "right" if transform.flipped else "left",
    }


def _findings(probability: Pixels, marked: MarkedRegions, facts: Facts) -> dict[str, Any]:
    """Describe the marked regions, or that there are none."""
    return {
        "score": float(probability.max()),
        "score_is": "the highest probability of any pixel",
        "marked_pixels": int(marked.mask.sum()),
        "lesions": [
            _lesion(number, lesion, facts) for number, lesion in enumerate(marked.lesions, 1)
        ],
        "lesions_left_out": marked.left_out,
    }


def _lesion(number: int, lesion: Lesion, facts: Facts) -> dict[str, Any]:
    return {
        "number": number,
        "score": lesion.score,
        "peak": lesion.peak,
        "centre_row": lesion.centre_row,
        "centre_column": lesion.centre_column,
        "box": list(lesion.box),
        "pixels": lesion.pixels,
        "area_mm2": lesion.area_mm2,
        "laterality": facts.laterality,
        "view": facts.view,
    }
