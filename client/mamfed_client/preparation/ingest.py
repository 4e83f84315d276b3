"""Read a folder of mammograms: collect the usable images, and reject the others with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mamfed_client.datasets import bare, plain
from mamfed_client.datasets.manifest import Manifest, PatientStatement, Row, linked_patients
from mamfed_client.datasets.other_files import OtherFile, count_other_files, describe
from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection, rejection
from mamfed_client.plausibility.cohort import CohortMember, judge_cohort
from mamfed_client.preparation.contradictions import contradictions, rejection_for
from mamfed_client.preparation.duplicates import Picture, find_duplicates, identifier_notes
from mamfed_client.preparation.eligibility import ExclusionReason, assign_purposes
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.mask_shapes import drawn_notes
from mamfed_client.preparation.patient_grouping import check_split, join_patients
from mamfed_client.preparation.patient_split import declared_parts
from mamfed_client.preparation.patients import JoinedPatients
from mamfed_client.preparation.prepare_row import Task, completed, is_outlined, read_row, stat_of
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.sandbox.decoder_pool import DecoderPool, open_decoder_pool
from mamfed_common.domain import Purpose
from mamfed_common.runtime.terminal import reading_progress


@dataclass(frozen=True, slots=True)
class AcceptedImage:
    """An accepted image.

    Attributes:
        row: Its row; values missing from the table are taken from the file.
        purposes: The purposes it serves; may be empty.
        result: What was read from its files.
        doubts: Possible problems; empty if the row is marked as reviewed.
    """

    row: Row
    purposes: frozenset[Purpose]
    result: RowResult
    doubts: Doubts = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """The result of reading a folder.

    Attributes:
        layout: The folder's layout.
        accepted: The accepted images, in table order.
        rejected: The rejected images, in table order.
        excluded: Number of accepted images excluded from the stages, by reason.
        statements: What every row states about its patient.
        linked_patients: Number of patients who share a picture, and therefore their part of the
            split, with another patient.
        other_files: Number of other files in the folder, by kind.
        notes: Remarks about the folder as a whole, in sentences that name no patient.
        rejected_rows: Rows that were read and rejected, by row number; empty for a prepared folder.
    """

    layout: str
    accepted: tuple[AcceptedImage, ...]
    rejected: tuple[Rejection, ...]
    excluded: Counter[ExclusionReason]
    statements: tuple[PatientStatement, ...]
    linked_patients: int
    other_files: Counter[OtherFile] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    rejected_rows: Mapping[int, Row] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Number of images that the folder lists."""
        return len(self.accepted) + len(self.rejected)


def ingest(
    manifest: Manifest,
    task: Task,
    journal: Journal,
    *,
    progress: str = "",
    accept_doubts: bool = True,
) -> Intake:
    """Read all files of a manifest, except those already recorded in the journal.

    Args:
        manifest: The images that the folder lists.
        task: How to read them.
        journal: Results of earlier runs; each file read is added.
        progress: Title of the progress bar on stderr; empty shows no bar.
        accept_doubts: Whether to use doubtful masks; otherwise their images are rejected.

    Raises:
        DataError: The split declared in the table is not valid.
        OutputError: The journal or the sample store cannot be written.
    """
    check_split(manifest, task.secret)
    other_files = count_other_files(manifest.folder, manifest.images, manifest.outlines)
    results = _outcomes(manifest.rows, task, journal, progress)
    return _judge(manifest, results, other_files, task.secret, accept_doubts=accept_doubts)


def _judge(
    manifest: Manifest,
    results: Mapping[int, RowResult],
    other_files: Counter[OtherFile],
    secret: bytes,
    *,
    accept_doubts: bool,
) -> Intake:
    """Accept or reject every row by what was read from its files, and by comparing them."""
    readable = [row for row in manifest.rows if results[row.row_number].reason is None]
    rows = [completed(row, results[row.row_number]) for row in readable]
    unreadable = {number: r for number, r in results.items() if r.reason is not None}
    pictures = [_picture(row, results[row.row_number]) for row in rows]
    duplicates, pairs = find_duplicates(pictures)
    joined = join_patients(manifest, rows, results, secret)
    without_patient = {row.row_number: _NO_PATIENT for row in rows if not row.patient_id}
    representative = linked_patients([*pairs, *joined.pairs])
    unusable = duplicates | without_patient
    doubts = _doubts([row for row in rows if row.row_number not in unusable], results)
    unusable |= _rejected_for_doubts(doubts, accept_doubts=accept_doubts)
    usable = [_linked(row, representative) for row in rows if row.row_number not in unusable]
    statements = _statements(manifest, rows, representative)
    declared_parts(statements)
    purposes, excluded = assign_purposes(usable, statements)
    accepted = tuple(_accepted(row, purposes, results, doubts) for row in usable)
    return Intake(
        layout=manifest.layout,
        accepted=accepted,
        rejected=_rejected(manifest, unreadable, unusable),
        excluded=excluded,
        statements=tuple(statements),
        linked_patients=len(linked_patients(pairs)),
        other_files=other_files,
        notes=tuple(_notes(manifest, accepted, joined, pictures, other_files)),
        rejected_rows={
            r.row_number: r for r in manifest.rows if r.row_number in {*unreadable, *unusable}
        },
    )


def _notes(
    manifest: Manifest,
    accepted: Sequence[AcceptedImage],
    joined: JoinedPatients,
    pictures: Sequence[Picture],
    other_files: Counter[OtherFile],
) -> Iterator[str]:
    """Yield remarks about the folder as a whole."""
    yield from joined.notes
    yield from identifier_notes(pictures)
    yield from drawn_notes(image.result.drawn_as for image in accepted)
    yield from describe(other_files)
    if manifest.layout == bare.LAYOUT and (
        other_files[OtherFile.TABLE] or list(manifest.folder.glob("[Ll]abels.*"))
    ):
        yield f"this layout reads no table; to use a table of labels, name it {plain.TABLE}"


def _rejected_for_doubts(
    doubts: Mapping[int, Doubts], *, accept_doubts: bool
) -> dict[int, FileRejected]:
    """Reject rows that describe another image and, unless accepted, doubtful masks."""
    other_image = _about_other_images(doubts)
    remaining = {number: some for number, some in doubts.items() if number not in other_image}
    return other_image if accept_doubts else other_image | _doubtful_masks(remaining)


def _doubts(rows: Sequence[Row], results: Mapping[int, RowResult]) -> dict[int, Doubts]:
    """Collect the doubts about each unreviewed row, from the row itself and from its cohort."""
    by_cohort = judge_cohort([member_of(row, results[row.row_number]) for row in rows])
    unreviewed = ((row.row_number, results[row.row_number]) for row in rows if not row.reviewed)
    return {n: (*contradictions(o), *o.doubts, *by_cohort.get(n, ())) for n, o in unreviewed}


def member_of(row: Row, result: RowResult) -> CohortMember:
    """Return the properties of one image by which a whole cohort is judged."""
    return CohortMember(row.row_number, row.vendor, row.laterality, result.measures, row.reviewed)


def _about_other_images(doubts: Mapping[int, Doubts]) -> dict[int, FileRejected]:
    rejections = {number: rejection_for(some) for number, some in doubts.items()}
    return {number: reason for number, reason in rejections.items() if reason is not None}


def _doubtful_masks(doubts: Mapping[int, Doubts]) -> dict[int, FileRejected]:
    by_row = {n: [d for d in some if d.doubt.about_mask] for n, some in doubts.items()}
    return {
        number: FileRejected(Reason.DOUBTFUL_MASK, "; ".join(map(str, about_mask)))
        for number, about_mask in by_row.items()
        if about_mask
    }


def _accepted(
    row: Row,
    purposes: Mapping[int, frozenset[Purpose]],
    results: Mapping[int, RowResult],
    doubts: Mapping[int, Doubts],
) -> AcceptedImage:
    number = row.row_number
    return AcceptedImage(row, purposes[number], results[number], doubts.get(number, ()))


_NO_PATIENT = FileRejected(Reason.NO_PATIENT, "neither the table nor the file names a patient")


def known_rows(manifest: Manifest, task: Task, journal: Journal) -> int:
    """Count the rows whose result is known from an earlier run."""
    return sum(_remembered(row, task, journal) is not None for row in manifest.rows)


def _outcomes(
    rows: Sequence[Row], task: Task, journal: Journal, progress: str
) -> dict[int, RowResult]:
    """Read rows in parallel threads: hashing, OpenCV and the decoders release the GIL."""
    known = {} if task.verify else {r.row_number: _remembered(r, task, journal) for r in rows}
    results = {number: result for number, result in known.items() if result is not None}
    unread = [row for row in rows if row.row_number not in results]
    with open_decoder_pool(len(unread)) as pool, reading_progress(progress, len(rows)) as advance:
        advance(len(results), sum(o.reason is not None for o in results.values()))
        pending = pool.pool.map(partial(_read, task, journal, pool), unread)
        for row, result in zip(unread, pending, strict=True):
            results[row.row_number] = result
            advance(1, int(result.reason is not None))
    return results


def _remembered(row: Row, task: Task, journal: Journal) -> RowResult | None:
    record = journal.find(task.key(row), stat_of(row))
    if record is None:
        return None
    try:
        result = RowResult.from_json(record)
    except (KeyError, TypeError, ValueError):
        return None
    is_complete = task.store is None or not result.digest or task.store.find(result.digest)
    return result if is_complete else None


def _read(task: Task, journal: Journal, pool: DecoderPool, row: Row) -> RowResult:
    """Read one row, and record the result."""
    stat = stat_of(row)
    result = read_row(row, task, pool)
    journal.add(task.key(row), stat, result.to_json())
    return result


def _linked(row: Row, representative: Mapping[str, str]) -> Row:
    return replace(row, patient_id=representative.get(row.patient_id, row.patient_id))


def _picture(row: Row, result: RowResult) -> Picture:
    return Picture(
        row_number=row.row_number,
        patient=row.patient_id,
        label=row.label,
        outlined=is_outlined(row),
        instance=result.instance,
        pixels=result.pixels,
        marked=result.lesion_share,
    )


def _statements(
    manifest: Manifest, rows: Sequence[Row], representative: Mapping[str, str]
) -> list[PatientStatement]:
    """Return each row's statement about its patient, including patients named only by a file."""
    by_row = {statement.row_number: statement for statement in manifest.statements}
    for row in rows:
        split = by_row[row.row_number].split if row.row_number in by_row else row.split
        by_row[row.row_number] = PatientStatement(row.row_number, row.patient_id, row.label, split)
    return [
        replace(s, patient_id=representative.get(s.patient_id, s.patient_id))
        for _, s in sorted(by_row.items())
        if s.patient_id
    ]


def _rejected(
    manifest: Manifest, unreadable: Mapping[int, RowResult], unusable: Mapping[int, FileRejected]
) -> tuple[Rejection, ...]:
    """Combine rejections by the table, by the files and by comparing files, in row order."""
    rejected = list(manifest.rejected)
    for row in manifest.rows:
        number = row.row_number
        if (result := unreadable.get(number)) is not None and result.reason is not None:
            rejected.append(Rejection(number, row.image, result.reason, result.detail))
        elif number in unusable:
            rejected.append(rejection(number, row.image, unusable[number]))
    return tuple(sorted(rejected, key=lambda r: r.row_number))
