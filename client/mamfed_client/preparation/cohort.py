"""One data set at a site, prepared for training: samples by purpose and part, and what they are."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from mamfed_client.datasets import read_folder
from mamfed_client.preparation.ingest import AcceptedImage, Intake, ingest
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.patient_split import declared_parts, draw_fold, draw_parts, strata
from mamfed_client.preparation.prepare_row import Task
from mamfed_client.preparation.prepared_folder import (
    SAMPLES,
    is_prepared,
    load_intake,
    open_store,
    remembered_parts,
)
from mamfed_client.preparation.pseudonyms import pseudonym, site_secret
from mamfed_client.preparation.sample_store import SampleStore, StoredSample
from mamfed_common.domain import PARTS, PURPOSES, Part, Purpose
from mamfed_common.errors import DataError
from mamfed_common.runtime.terminal import print_lines
from mamfed_common.transforms.sample import Sample


@dataclass(frozen=True, slots=True)
class SplitImage:
    """A usable image in its part of the split.

    Attributes:
        case: The image.
        part: The part that its patient is in.
        entry: Its prepared sample.
    """

    case: AcceptedImage
    part: Part
    entry: StoredSample


@dataclass(frozen=True, slots=True)
class CohortCounts:
    """What a cohort holds; nothing here names a patient or a file.

    Attributes:
        rows: Images that the folder offers.
        images: Usable images by purpose, then by part.
        patients: Patients behind them, likewise.
        rejected: Images that cannot be used, by reason.
        left_out: Readable images that a rule keeps out of the stages, by reason.
        vendors: Usable images by vendor.
    """

    rows: int
    images: dict[Purpose, dict[Part, int]]
    patients: dict[Purpose, dict[Part, int]]
    rejected: dict[str, int]
    left_out: dict[str, int]
    vendors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Cohort:
    """A prepared data set.

    Attributes:
        name: Its name, which seeds its split.
        placed: The usable images in the table's order.
        intake: All that the folder gave.
        counts: What it holds.
    """

    name: str
    placed: tuple[SplitImage, ...]
    intake: Intake
    counts: CohortCounts

    def samples(self, purpose: Purpose, part: Part) -> StoredSamples:
        """Return the samples of one purpose and part, each read when it is looked at."""
        return StoredSamples(_chosen(self.placed, purpose, part))

    def split_sha256(self) -> str:
        """Return the SHA-256 by which a checkpoint knows this data set and its division.

        It is over the name and, of every image, the part and the SHA-256 of its file: a file more
        or less, another one, another name, seed, fold or split column make it another.
        """
        images = sorted(f"{image.part} {image.case.outcome.image_sha256}" for image in self.placed)
        text = "\n".join(["mamfed split 1", self.name, *images])
        return hashlib.sha256(text.encode()).hexdigest()


class LazySamples(Sequence[Sample]):
    """Samples that stay on disk until one is looked at, by this process or another one."""

    @abstractmethod
    def entry(self, index: int) -> tuple[str, StoredSample]:
        """Return what the site calls an image, and where its sample lies; nothing is read."""


class StoredSamples(LazySamples):
    """Samples of some images."""

    def __init__(self, placed: Sequence[SplitImage]) -> None:
        """Stand for the samples of these images."""
        self.placed = placed

    def __len__(self) -> int:
        """Count the samples without reading any."""
        return len(self.placed)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> StoredSamples: ...
    def __getitem__(self, index: int | slice) -> Sample | StoredSamples:
        """Read one sample, or stand for some of them."""
        if isinstance(index, slice):
            return StoredSamples(self.placed[index])
        name, entry = self.entry(index)
        return entry.load(name)

    def entry(self, index: int) -> tuple[str, StoredSample]:
        """Return an image's name and its prepared sample."""
        image = self.placed[index]
        return image.case.row.image, image.entry


def load_cohort(
    name: str,
    folder: Path,
    *,
    size: int,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    fold: tuple[int, int] | None = None,
    cache_dir: Path,
    key_path: Path | None = None,
    progress: bool = False,
) -> Cohort:
    """Take in a folder, or open a prepared one, and split its patients.

    Args:
        name: The cohort's name.
        folder: A data set in one of the known layouts, or what ``data prepare`` made of one.
        size: Side of the samples in pixels.
        seed: The plan's seed, which draws the split.
        val_fraction: Share of the patients for validation, 0..1.
        test_fraction: Share of the patients for testing, 0..1.
        fold: Which run of how many that together test every patient once, in place of
            ``test_fraction``.
        cache_dir: Where samples of a folder that is not prepared are kept.
        key_path: Key of a prepared folder that is encrypted.
        progress: Whether to show a progress bar on stderr.

    Raises:
        DataError: The folder or its table cannot be used, or no image of it.
    """
    if is_prepared(folder):
        intake, store = _open_prepared(folder, size, key_path)
    else:
        intake, store = _take_in(name, folder, size, cache_dir, progress)
    print_lines([f"{name}: {note}" for note in intake.notes] if progress else ())
    usable = [case for case in intake.cases if case.purposes]
    if not usable:
        raise DataError(_nothing_usable(folder, intake))

    def draw(patients: frozenset[str]) -> dict[str, Part]:
        groups = [group & patients for group in patient_strata(usable)]
        if fold is not None:
            return draw_fold(groups, name, seed, val_fraction, *fold)
        return draw_parts(groups, name, seed, val_fraction, test_fraction)

    patients = frozenset(case.row.patient_id for case in usable)
    parts = declared_parts(intake.statements)
    if parts is not None and fold is not None:
        raise DataError(
            f"{folder}: its table's split column says who is tested, so it cannot be tested in "
            "folds; remove the column, or ask for no folds"
        )
    if parts is None and is_prepared(folder):
        held_out = test_fraction if fold is None else f"fold {fold[0]} of {fold[1]}"
        what = f"{name} {seed} {val_fraction} {held_out}"
        parts = remembered_parts(folder, what, patients, draw)
    parts = parts or draw(patients)
    placed = [SplitImage(c, parts[c.row.patient_id], _entry(store, c, folder)) for c in usable]
    return Cohort(name, tuple(placed), intake, _counts(intake, placed))


def _open_prepared(folder: Path, size: int, key_path: Path | None) -> tuple[Intake, SampleStore]:
    intake, prepared_size, encrypted = load_intake(folder)
    if prepared_size != size:
        raise DataError(
            f"{folder}: prepared at {prepared_size}, the plan asks for {size}; "
            f"run mamfed-client data prepare --size {size} into another folder"
        )
    return intake, open_store(folder, key_path, encrypted=encrypted)


def _take_in(
    name: str, folder: Path, size: int, cache_dir: Path, progress: bool
) -> tuple[Intake, SampleStore]:
    manifest = read_folder(folder)
    store = SampleStore(cache_dir / SAMPLES)
    task = Task(size, store, site_secret())
    known_as = pseudonym(task.secret, "folder", str(folder.resolve()), str(size))
    journal = Journal(cache_dir / "journals" / f"{known_as}.jsonl")
    title = f"preparing {name}" if progress else ""
    intake = ingest(manifest, task, journal, progress=title)
    journal.finish(task.key(row) for row in manifest.rows)
    if progress:
        _warn(name, folder, intake)
    return intake, store


def _warn(name: str, folder: Path, intake: Intake) -> None:
    """Say that doubtful masks are trained on, which preparing the folder would leave out."""
    doubted = sum(any(found.doubt.about_mask for found in c.doubts) for c in intake.cases)
    if doubted:
        masks = "1 mask is" if doubted == 1 else f"{doubted} masks are"
        page = f"'mamfed-client data check {folder} --html'"
        print_lines([f"{name}: {masks} doubtful; look at the page of {page}"])


def _entry(store: SampleStore, case: AcceptedImage, folder: Path) -> StoredSample:
    entry = store.find(case.outcome.digest)
    if entry is None:
        raise DataError(
            f"{folder}: the sample of {case.row.image} is gone; prepare the folder again"
        )
    return entry


def patient_strata(cases: Sequence[AcceptedImage]) -> list[set[str]]:
    """Group patients by the rarest purpose they serve and by vendor: every part gets of each."""
    rarest: list[Purpose] = ["malignant", "benign", "without_malignancy"]
    return strata(
        (c.row.patient_id, min(rarest.index(p) for p in c.purposes), c.row.vendor or "")
        for c in cases
    )


def _counts(intake: Intake, placed: Sequence[SplitImage]) -> CohortCounts:
    images: dict[Purpose, dict[Part, int]] = {}
    patients: dict[Purpose, dict[Part, int]] = {}
    for purpose in PURPOSES:
        found = {part: _chosen(placed, purpose, part) for part in PARTS}
        images[purpose] = {part: len(some) for part, some in found.items()}
        patients[purpose] = {
            part: len({p.case.row.patient_id for p in some}) for part, some in found.items()
        }
    return CohortCounts(
        rows=intake.files,
        images=images,
        patients=patients,
        rejected=tally(r.reason for r in intake.rejected),
        left_out=tally(intake.left_out.elements()),
        vendors=tally(p.case.row.vendor or "unknown" for p in placed),
    )


def _chosen(placed: Sequence[SplitImage], purpose: Purpose, part: Part) -> list[SplitImage]:
    return [image for image in placed if purpose in image.case.purposes and image.part == part]


def tally(words: Iterable[str]) -> dict[str, int]:
    """Count words, the most frequent first, equal ones by name."""
    counts = Counter(str(word) for word in words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nothing_usable(folder: Path, intake: Intake) -> str:
    counts: Mapping[str, int] = tally(
        [*(r.reason for r in intake.rejected), *intake.left_out.elements()]
    )
    found = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
    return f"{folder}: no image can be used: {found}"
