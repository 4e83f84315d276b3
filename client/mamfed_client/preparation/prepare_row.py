"""One row -> what its files hold, and its sample."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mamfed_client.annotations import MarkedRegions
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.mammogram import Facts, Mammogram, Mask
from mamfed_client.imaging.preprocess import PREPARE_VERSION, ImageAnalysis, analyse, prepare
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility import judge_image, judge_mask
from mamfed_client.preparation.eligibility import is_malignant, is_without_malignancy
from mamfed_client.preparation.mask_shapes import drawn_as
from mamfed_client.preparation.patients import patient_key
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.preparation.sample_store import SampleStore, digest
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.tables.field_parsers import Label, parse_label

READING_VERSION = 9
"""To be raised with every change that makes another outcome of the same files."""

SAID = frozenset(
    "ImageLaterality Laterality FrameLaterality AnatomicRegionModifierSequence ViewPosition"
    " ViewCodeSequence".split()
)
"""Elements that may contradict a table; a file's name and Patient Orientation may be anything's."""

CHECK_SIZE = 256
"""Where nothing is stored a small sample shows as well whether the breast can be found."""

PIXEL_STEP = 4
"""Every fourth row and column tell two pictures apart."""


@dataclass(frozen=True, slots=True)
class Task:
    """How rows are read.

    Attributes:
        size: Side of the samples in pixels.
        store: Where samples go; None reads without keeping any.
        secret: The site's, for pseudonyms.
        verify: Whether to read files, and look at samples, though they look unchanged.
    """

    size: int
    store: SampleStore | None
    secret: bytes
    verify: bool = False

    def key(self, row: Row) -> str:
        """Name everything that a row's outcome depends on, apart from what the files hold."""
        words = [os.path.realpath(path) for path in paths_of(row)]
        words += [f"{a.image_name} {a.shapes} {a.take}" for a in row.annotations]
        words += [str(row.label), str(row.laterality), str(row.view), str(row.spacing_mm)]
        words += [str(row.vendor), *sorted(row.allow), str(self.size), str(self.store is None)]
        return pseudonym(self.secret, "row", *words, f"{PREPARE_VERSION}.{READING_VERSION}")


def paths_of(row: Row) -> list[Path]:
    """List the files that a row is read from."""
    return [row.image_path, *(a.path for a in row.annotations if a.path is not None)]


def stat_of(row: Row) -> list[int]:
    """Return sizes and times of a row's files; empty where one is missing.

    Of the times, only that of the last change of anything cannot be set: a file that was put back
    under its old time is another one.
    """
    try:
        stats = [path.stat() for path in paths_of(row)]
    except OSError:
        return []
    return [n for stat in stats for n in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)]


def read_row(row: Row, task: Task, decoder: Decoder) -> RowResult:
    """Read a row's files and store its sample.

    Raises:
        OutputError: The store cannot be written.
    """
    try:
        return _accepted(row, task, decoder)
    except FileRejected as refusal:
        return RowResult.refused(refusal)


def is_outlined(row: Row) -> bool:
    """Tell whether a row has an annotation that may be drawn: a file, or a shape but a box."""
    return any(a.path or any(s.kind != "box" for s in a.shapes) for a in row.annotations)


def annotations_of(row: Row, mammogram: Mammogram) -> tuple[Annotation, ...]:
    """Tell annotations which image they should be about."""
    return tuple(replace(a, instance=mammogram.facts.instance) for a in row.annotations)


def label_of(row: Row, birads: str | None) -> Label:
    """Return a row's label: the table's, else what the file says of its assessment."""
    if row.label.pathology is not None or row.label.birads or birads is None:
        return row.label
    try:
        return parse_label("", birads)
    except FileRejected:
        return row.label


def _accepted(row: Row, task: Task, decoder: Decoder) -> RowResult:
    mammogram, image_sha256 = decoder.mammogram(row.image_path, row.allow)
    by_file = mammogram.facts
    mammogram = replace(mammogram, facts=table_first(row, by_file))
    marked, mask_sha256 = _marked(row, mammogram, decoder)
    look = analyse(mammogram)
    judged = judge_image(mammogram, look)
    if marked is not None:
        judged = judge_mask(marked.mask, look, judged, marked.outlines)
    mask = None if marked is None else marked.mask
    name = _stored(row, task, mammogram, look, mask, image_sha256, mask_sha256)
    facts, (rows, columns) = mammogram.facts, mammogram.grey.shape
    return RowResult(
        image_sha256=image_sha256,
        digest=name,
        pixels=_fingerprint(mammogram),
        patient=pseudonym(task.secret, "patient", facts.patient) if facts.patient else "",
        alike=patient_key(task.secret, facts.patient),
        instance=pseudonym(task.secret, "instance", facts.instance) if facts.instance else "",
        laterality=facts.laterality,
        laterality_source=facts.laterality_source,
        view=facts.view,
        view_source=facts.view_source,
        file_laterality=by_file.laterality if by_file.laterality_source in SAID else None,
        file_view=by_file.view if by_file.view_source in SAID else None,
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


def table_first(row: Row, facts: Facts) -> Facts:
    """Let the table's cells stand before what the file says of itself."""
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
    """Read what outlines a malignant row's findings. Only these are targets of training."""
    if not is_malignant(row.label) or not is_outlined(row):
        return None, ""
    rows, columns = mammogram.grey.shape
    marked, sha256 = decoder.mask(annotations_of(row, mammogram), rows, columns)
    if not marked.mask.any():
        raise FileRejected(
            Reason.EMPTY_MASK, "the row is malignant but its annotation marks nothing"
        )
    return marked, sha256


def _stored(
    row: Row,
    task: Task,
    mammogram: Mammogram,
    look: ImageAnalysis,
    mask: Mask | None,
    image_sha256: str,
    mask_sha256: str,
) -> str:
    """Prepare the sample, unless the store has it or nobody would look at it; name it."""
    if task.store is None:
        prepare(mammogram, mask, CHECK_SIZE, look=look)
        return ""
    if mask is None and not is_without_malignancy(label_of(row, mammogram.facts.birads)):
        prepare(mammogram, mask, CHECK_SIZE, look=look)
        return ""
    side = mammogram.facts.laterality
    name = digest(image_sha256, mask_sha256, side, task.size, READING_VERSION)
    entry = task.store.find(name)
    if entry is None or (task.verify and not entry.is_sound()):
        task.store.add(name, *prepare(mammogram, mask, task.size, look=look))
    return name


def _fingerprint(mammogram: Mammogram) -> str:
    shape = str(mammogram.grey.shape).encode()
    levels = np.ascontiguousarray(mammogram.grey[::PIXEL_STEP, ::PIXEL_STEP])
    return hashlib.sha256(shape + levels.tobytes()).hexdigest()[:32]
