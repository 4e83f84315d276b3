"""Read one row's files and store its sample."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from mamfed_client.annotations import MarkedRegions
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.mammogram import Facts, Mammogram, Mask
from mamfed_client.imaging.preprocess import (
    PREPARE_VERSION,
    ImageAnalysis,
    analyse,
    check_preparable,
    prepare,
)
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility import judge_image, judge_mask
from mamfed_client.preparation.eligibility import is_malignant, is_without_malignancy
from mamfed_client.preparation.mask_shapes import drawn_as
from mamfed_client.preparation.patients import patient_key
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.preparation.sample_store import SampleStore, digest
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.sandbox.decoder_pool import DecoderPool
from mamfed_client.tables.field_parsers import Label, parse_label

Value = TypeVar("Value", bound=str)

READING_VERSION = 9
"""Increase this with every change that alters the result for the same files."""

RELIABLE_ELEMENTS = frozenset(
    "ImageLaterality Laterality FrameLaterality AnatomicRegionModifierSequence ViewPosition"
    " ViewCodeSequence".split()
)
"""Elements that can contradict a table; file names and Patient Orientation are too unreliable."""

CHECK_SIZE = 256
"""Sample size where only facts about a folder are wanted."""

PIXEL_STEP = 4
"""Every fourth row and column are enough to tell two pictures apart."""


@dataclass(frozen=True, slots=True)
class Task:
    """How to read rows.

    Attributes:
        size: Side of the samples in pixels.
        store: Where to store samples; None stores none.
        secret: The site's secret, for pseudonyms.
        verify: Whether to read files and check samples again even if they look unchanged.
    """

    size: int
    store: SampleStore | None
    secret: bytes
    verify: bool = False

    def key(self, row: Row) -> str:
        """Return a key over everything that determines a row's result, except file contents."""
        words = [os.path.realpath(path) for path in paths_of(row)]
        words += [f"{a.image_name} {a.shapes} {a.malignant}" for a in row.annotations]
        words += [str(row.label), str(row.laterality), str(row.view), str(row.spacing_mm)]
        words += [str(row.vendor), *sorted(row.allow), str(self.size), str(self.store is None)]
        return pseudonym(self.secret, "row", *words, f"{PREPARE_VERSION}.{READING_VERSION}")


def paths_of(row: Row) -> list[Path]:
    """List the files that a row consists of."""
    return [row.image_path, *(a.path for a in row.annotations if a.path is not None)]


def stat_of(row: Row) -> list[int]:
    """Return sizes and times of a row's files; empty if a file is missing.

    The status change time (ctime) is included because, unlike the modification time, it cannot be
    set: it reveals a file that was replaced and given its old modification time.
    """
    try:
        stats = [path.stat() for path in paths_of(row)]
    except OSError:
        return []
    return [n for stat in stats for n in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)]


def read_row(row: Row, task: Task, pool: DecoderPool) -> RowResult:
    """Read a row's files with the next free decoder and store its sample.

    The decoder is free for the next row while this one is judged, prepared and stored.

    Raises:
        OutputError: The store cannot be written.
    """
    try:
        return _accepted(row, task, pool)
    except FileRejected as rejected:
        return RowResult.rejected(rejected)


def is_outlined(row: Row) -> bool:
    """Tell whether a row has an outline: an annotation file, or a shape other than a box."""
    return any(a.path or any(s.kind != "box" for s in a.shapes) for a in row.annotations)


def annotations_of(row: Row, mammogram: Mammogram) -> tuple[Annotation, ...]:
    """Return a row's annotations with the SOP Instance UID of the image they should refer to."""
    return tuple(replace(a, instance=mammogram.facts.instance) for a in row.annotations)


def label_of(row: Row, birads: str | None) -> Label:
    """Return the table's label or, if that is empty, the file's BI-RADS assessment."""
    if row.label.pathology is not None or row.label.birads or birads is None:
        return row.label
    try:
        return parse_label("", birads)
    except FileRejected:
        return row.label


def completed(row: Row, result: RowResult) -> Row:
    """Fill in values that the table leaves empty with those read from the file."""
    return replace(
        row,
        patient_id=row.patient_id or result.patient,
        label=label_of(row, result.birads),
        laterality=result.laterality,
        view=result.view,
        spacing_mm=result.spacing_mm,
        vendor=result.vendor,
    )


def _accepted(row: Row, task: Task, pool: DecoderPool) -> RowResult:
    with pool.decoder() as decoder:
        mammogram, image_sha256 = decoder.mammogram(row.image_path, row.allow)
        file_facts = mammogram.facts
        mammogram = replace(mammogram, facts=table_first(row, file_facts))
        marked, mask_sha256 = _marked(row, mammogram, decoder)
    analysis = analyse(mammogram)
    judged = judge_image(mammogram, analysis)
    if marked is not None:
        judged = judge_mask(marked.mask, analysis, judged, marked.outlines)
    mask = None if marked is None else marked.mask
    sample_digest = _stored(row, task, mammogram, analysis, mask, image_sha256, mask_sha256)
    facts, (rows, columns) = mammogram.facts, mammogram.grey.shape
    return RowResult(
        image_sha256=image_sha256,
        digest=sample_digest,
        pixels=_fingerprint(mammogram),
        patient=pseudonym(task.secret, "patient", facts.patient) if facts.patient else "",
        alike=patient_key(task.secret, facts.patient),
        instance=pseudonym(task.secret, "instance", facts.instance) if facts.instance else "",
        laterality=facts.laterality,
        laterality_source=facts.laterality_source,
        view=facts.view,
        view_source=facts.view_source,
        file_laterality=_if_reliable(file_facts.laterality, file_facts.laterality_source),
        file_view=_if_reliable(file_facts.view, file_facts.view_source),
        spacing_mm=facts.spacing_mm,
        vendor=facts.vendor,
        model=facts.model,
        birads=facts.birads,
        rows=rows,
        columns=columns,
        lesion_share=0.0 if mask is None else np.count_nonzero(mask) / mask.size,
        drawn_as="" if mask is None else drawn_as(mask),
        resampled=0 if marked is None else marked.resampled,
        others=0 if marked is None else marked.others,
        doubts=((*marked.doubts,) if marked else ()) + mammogram.doubts + judged.doubts,
        measures=judged.measures,
    )


def _if_reliable(value: Value | None, source: str) -> Value | None:
    return value if source in RELIABLE_ELEMENTS else None


def table_first(row: Row, facts: Facts) -> Facts:
    """Return the facts with the table's values in place of the file's, where the table has any."""
    if row.laterality is not None:
        facts = replace(facts, laterality=row.laterality, laterality_source="table")
    if row.view is not None:
        facts = replace(facts, view=row.view, view_source="table")
    return replace(
        facts,
        spacing_mm=row.spacing_mm or facts.spacing_mm,
        vendor=row.vendor or facts.vendor,
    )


def _marked(row: Row, mammogram: Mammogram, decoder: Decoder) -> tuple[MarkedRegions | None, str]:
    """Read the outlines of a malignant row's findings; only these are training targets."""
    if not is_malignant(row.label) or not is_outlined(row):
        return None, ""
    rows, columns = mammogram.grey.shape
    marked, sha256 = decoder.mask(annotations_of(row, mammogram), rows, columns)
    if not marked.mask.any():
        raise FileRejected(
            Reason.EMPTY_MASK, "the row is malignant, but its annotation marks nothing"
        )
    return marked, sha256


def _stored(
    row: Row,
    task: Task,
    mammogram: Mammogram,
    analysis: ImageAnalysis,
    mask: Mask | None,
    image_sha256: str,
    mask_sha256: str,
) -> str:
    """Store the sample unless it is cached or unused; return its digest, or "" if not stored."""
    is_used = mask is not None or is_without_malignancy(label_of(row, mammogram.facts.birads))
    if task.store is None or not is_used:
        check_preparable(mammogram, mask, analysis)
        return ""
    laterality = mammogram.facts.laterality
    name = digest(image_sha256, mask_sha256, laterality, task.size, READING_VERSION)
    sample = task.store.find(name)
    if sample is None or (task.verify and not sample.is_sound()):
        task.store.add(name, *prepare(mammogram, mask, task.size, analysis=analysis))
    return name


def _fingerprint(mammogram: Mammogram) -> str:
    """Hash the grey levels, so that the same picture is recognised in any file format."""
    shape = str(mammogram.grey.shape).encode()
    levels = np.ascontiguousarray(mammogram.grey[::PIXEL_STEP, ::PIXEL_STEP])
    return hashlib.sha256(shape + levels.tobytes()).hexdigest()[:32]
