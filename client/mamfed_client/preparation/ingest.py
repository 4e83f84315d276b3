"""A folder of mammograms -> what can be trained on, and every file that cannot, by reason."""

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
from mamfed_client.preparation.contradictions import contradictions, refusal_of
from mamfed_client.preparation.duplicates import Picture, find_duplicates, identifier_notes
from mamfed_client.preparation.eligibility import ExclusionReason, assign_purposes
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.mask_shapes import drawn_notes
from mamfed_client.preparation.patient_grouping import check_split, join_patients
from mamfed_client.preparation.patient_split import declared_parts
from mamfed_client.preparation.patients import JoinedPatients
from mamfed_client.preparation.prepare_row import Task, is_outlined, label_of, read_row, stat_of
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.sandbox.decoder_pool import Readers, readers
from mamfed_common.domain import Purpose
from mamfed_common.runtime.terminal import reading_progress


@dataclass(frozen=True, slots=True)
class AcceptedImage:
    """An accepted image.

    Attributes:
        row: Its row, completed by what the file says.
        purposes: What it serves, perhaps nothing.
        outcome: What its files hold.
        doubts: What may be wrong with it, unless somebody has reviewed it.
    """

    row: Row
    purposes: frozenset[Purpose]
    outcome: RowResult
    doubts: Doubts = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """What a folder gave.

    Attributes:
        layout: How the folder is laid out.
        cases: The accepted images in the table's order.
        rejected: The others, likewise.
        left_out: Accepted images that a rule keeps out of the stages, by reason.
        statements: What all rows say of their patients.
        linked: How many patients share a picture with another one, and so their part of the split.
        beside: What else lies in the folder, by kind.
        notes: What a person should know of the folder as a whole, in sentences that name nobody.
        refused: Rows that were tried and rejected, by number; a prepared folder knows none.
    """

    layout: str
    cases: tuple[AcceptedImage, ...]
    rejected: tuple[Rejection, ...]
    left_out: Counter[ExclusionReason]
    statements: tuple[PatientStatement, ...]
    linked: int
    beside: Counter[OtherFile] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    refused: Mapping[int, Row] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """How many images the folder offers."""
        return len(self.cases) + len(self.rejected)


def ingest(
    manifest: Manifest,
    task: Task,
    journal: Journal,
    *,
    progress: str = "",
    accept_doubts: bool = True,
) -> Intake:
    """Read all files of a manifest, except those whose outcome is known from an earlier run.

    Args:
        manifest: What the folder offers.
        task: How to read.
        journal: What is known; it grows with every file.
        progress: What to call the work in a progress bar on stderr; empty shows none.
        accept_doubts: Whether doubtful masks are used; else their images are rejected.

    Raises:
        DataError: The split that the table declares cannot be used.
        OutputError: Journal or store cannot be written.
    """
    check_split(manifest, task.secret)
    beside = count_other_files(manifest.folder, manifest.images, manifest.outlines)
    outcomes = _outcomes(manifest.rows, task, journal, progress)
    accepted = [row for row in manifest.rows if outcomes[row.row_number].reason is None]
    rows = [_completed(row, outcomes[row.row_number]) for row in accepted]
    refused = {number: o for number, o in outcomes.items() if o.reason is not None}
    pictures = [_picture(row, outcomes[row.row_number]) for row in rows]
    duplicates, pairs = find_duplicates(pictures)
    joined = join_patients(manifest, rows, outcomes, task.secret)
    nameless = {row.row_number: _NAMELESS for row in rows if not row.patient_id}
    representative = linked_patients([*pairs, *joined.pairs])
    unusable = duplicates | nameless
    doubts = _doubts([row for row in rows if row.row_number not in unusable], outcomes)
    unusable |= _refused_for(doubts, accept_doubts=accept_doubts)
    left = [_linked(row, representative) for row in rows if row.row_number not in unusable]
    statements = _statements(manifest, rows, representative)
    declared_parts(statements)
    purposes, left_out = assign_purposes(left, statements)
    cases = tuple(_case(row, purposes, outcomes, doubts) for row in left)
    return Intake(
        layout=manifest.layout,
        cases=cases,
        rejected=_rejected(manifest, refused, unusable),
        left_out=left_out,
        statements=tuple(statements),
        linked=len(linked_patients(pairs)),
        beside=beside,
        notes=tuple(_notes(manifest, cases, joined, pictures, beside)),
        refused={r.row_number: r for r in manifest.rows if r.row_number in {*refused, *unusable}},
    )


def _notes(
    manifest: Manifest,
    cases: Sequence[AcceptedImage],
    joined: JoinedPatients,
    pictures: Sequence[Picture],
    beside: Counter[OtherFile],
) -> Iterator[str]:
    """Say what a person should know of the folder as a whole."""
    yield from joined.notes
    yield from identifier_notes(pictures)
    yield from drawn_notes(case.outcome.drawn_as for case in cases)
    yield from describe(beside)
    if manifest.layout == bare.LAYOUT and (
        beside[OtherFile.TABLE] or list(manifest.folder.glob("[Ll]abels.*"))
    ):
        yield f"no table is read in this layout; a table of labels is called {plain.TABLE}"


def _refused_for(doubts: Mapping[int, Doubts], *, accept_doubts: bool) -> dict[int, FileRejected]:
    """Refuse rows about other images and, unless they are accepted, doubtful masks."""
    other = _about_other_images(doubts)
    left = {number: some for number, some in doubts.items() if number not in other}
    return other if accept_doubts else other | _doubtful_masks(left)


def _doubts(rows: Sequence[Row], outcomes: Mapping[int, RowResult]) -> dict[int, Doubts]:
    """Collect what is doubtful of rows that nobody has reviewed, by themselves and together."""
    together = judge_cohort([member_of(row, outcomes[row.row_number]) for row in rows])
    found = ((row.row_number, outcomes[row.row_number]) for row in rows if not row.reviewed)
    return {n: (*contradictions(o), *o.doubts, *together.get(n, ())) for n, o in found}


def member_of(row: Row, outcome: RowResult) -> CohortMember:
    """Return what a site as a whole is judged by of one image."""
    return CohortMember(row.row_number, row.vendor, row.laterality, outcome.measures, row.reviewed)


def _about_other_images(doubts: Mapping[int, Doubts]) -> dict[int, FileRejected]:
    found = {number: refusal_of(some) for number, some in doubts.items()}
    return {number: refusal for number, refusal in found.items() if refusal is not None}


def _doubtful_masks(doubts: Mapping[int, Doubts]) -> dict[int, FileRejected]:
    found = {n: [d for d in some if d.doubt.about_mask] for n, some in doubts.items()}
    return {
        number: FileRejected(Reason.DOUBTFUL_MASK, "; ".join(map(str, about_mask)))
        for number, about_mask in found.items()
        if about_mask
    }


def _case(
    row: Row,
    purposes: Mapping[int, frozenset[Purpose]],
    outcomes: Mapping[int, RowResult],
    doubts: Mapping[int, Doubts],
) -> AcceptedImage:
    number = row.row_number
    return AcceptedImage(row, purposes[number], outcomes[number], doubts.get(number, ()))


_NAMELESS = FileRejected(Reason.NO_PATIENT, "neither a table nor the file names one")


def known_rows(manifest: Manifest, task: Task, journal: Journal) -> int:
    """Count the rows whose outcome an earlier run has left."""
    return sum(_remembered(row, task, journal) is not None for row in manifest.rows)


def _outcomes(
    rows: Sequence[Row], task: Task, journal: Journal, progress: str
) -> dict[int, RowResult]:
    """Read rows side by side; hashing, OpenCV and the decoders leave the interpreter's lock."""
    known = {} if task.verify else {r.row_number: _remembered(r, task, journal) for r in rows}
    outcomes = {number: outcome for number, outcome in known.items() if outcome is not None}
    todo = [row for row in rows if row.row_number not in outcomes]
    with readers(len(todo)) as side_by_side, reading_progress(progress, len(rows)) as done:
        done(len(outcomes), sum(o.reason is not None for o in outcomes.values()))
        results = side_by_side.pool.map(partial(_read, task, journal, side_by_side), todo)
        for row, outcome in zip(todo, results, strict=True):
            outcomes[row.row_number] = outcome
            done(1, int(outcome.reason is not None))
    return outcomes


def _remembered(row: Row, task: Task, journal: Journal) -> RowResult | None:
    found = journal.find(task.key(row), stat_of(row))
    if found is None:
        return None
    try:
        outcome = RowResult.from_json(found)
    except (KeyError, TypeError, ValueError):
        return None
    stored = task.store is None or not outcome.digest or task.store.find(outcome.digest)
    return outcome if stored else None


def _read(task: Task, journal: Journal, side_by_side: Readers, row: Row) -> RowResult:
    """Read one row with whichever decoder is free."""
    stat = stat_of(row)
    with side_by_side.decoder() as decoder:
        outcome = read_row(row, task, decoder)
    journal.add(task.key(row), stat, outcome.to_json())
    return outcome


def _completed(row: Row, outcome: RowResult) -> Row:
    """Fill what the table leaves open with what the file says."""
    return replace(
        row,
        patient_id=row.patient_id or outcome.patient,
        label=label_of(row, outcome.birads),
        laterality=outcome.laterality,
        view=outcome.view,
        spacing_mm=outcome.spacing_mm,
        vendor=outcome.vendor,
    )


def _linked(row: Row, representative: Mapping[str, str]) -> Row:
    return replace(row, patient_id=representative.get(row.patient_id, row.patient_id))


def _picture(row: Row, outcome: RowResult) -> Picture:
    outlined = is_outlined(row)
    return Picture(
        row.row_number,
        row.patient_id,
        row.label,
        outlined,
        outcome.instance,
        outcome.pixels,
        outcome.lesion_share,
    )


def _statements(
    manifest: Manifest, rows: Sequence[Row], representative: Mapping[str, str]
) -> list[PatientStatement]:
    """Let every row speak for its patient, also where only the file knew who that is."""
    said = {statement.row_number: statement for statement in manifest.statements}
    for row in rows:
        split = said[row.row_number].split if row.row_number in said else row.split
        said[row.row_number] = PatientStatement(row.row_number, row.patient_id, row.label, split)
    return [
        replace(s, patient_id=representative.get(s.patient_id, s.patient_id))
        for _, s in sorted(said.items())
        if s.patient_id
    ]


def _rejected(
    manifest: Manifest, refused: Mapping[int, RowResult], refusals: Mapping[int, FileRejected]
) -> tuple[Rejection, ...]:
    """Join what the table, the files and the comparison of files made unusable, in order."""
    rejected = list(manifest.rejected)
    for row in manifest.rows:
        number = row.row_number
        if (outcome := refused.get(number)) is not None and outcome.reason is not None:
            rejected.append(Rejection(number, row.image, outcome.reason, outcome.detail))
        elif number in refusals:
            rejected.append(rejection(number, row.image, refusals[number]))
    return tuple(sorted(rejected, key=lambda r: r.row_number))
