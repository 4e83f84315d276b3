"""An image as the network sees it, read from its file or from a prepared folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.derived_header import Header
from mamfed_client.imaging.dicom_attributes import CBIS_PATIENT
from mamfed_client.imaging.display_steps import DisplaySteps
from mamfed_client.imaging.geometry import Transform
from mamfed_client.imaging.mammogram import Facts, Grey
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.imaging.raster import SUFFIXES
from mamfed_client.prediction.kinds import NEED_DISPLAY
from mamfed_client.prediction.sources import Source
from mamfed_client.preparation.prepare_row import table_first
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.transforms.sample import Sample


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
        steps: How the file's stored values become grey levels; None if no object needs it.
        pixel: A pixel's height and width.
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
    steps: DisplaySteps | None = None
    pixel: tuple[float, float] = (1.0, 1.0)


def view_of(
    source: Source,
    identity: str,
    size: int,
    decoder: Decoder,
    secret: bytes,
    kinds: Collection[str],
) -> View:
    """Read an image and prepare it as for training.

    Args:
        source: The image.
        identity: Its pseudonym.
        size: Side of the network's images in pixels.
        decoder: Reads its file.
        secret: The site's secret.
        kinds: The kinds of DICOM objects to make of it.

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
    header: Header | None = None
    steps: DisplaySteps | None = None
    pixel = (1.0, 1.0)
    if row.image_path.suffix.lower() not in SUFFIXES:
        header = decoder.source(row.image_path)
        if not NEED_DISPLAY.isdisjoint(kinds):
            steps, pixel = decoder.display(row.image_path)
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
        steps,
        pixel,
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
