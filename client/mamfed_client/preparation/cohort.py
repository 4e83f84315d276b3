"""A cohort: one of a site's data sets, prepared for training and split by patient."""

from __future__ import annotations

import hashlib
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
        part: The part that its patient belongs to.
        entry: Its prepared sample on disk.
    """

    case: AcceptedImage
    part: Part
    entry: StoredSample


@dataclass(frozen=True, slots=True)
class CohortCounts:
    """The counts of a cohort; they name no patient and no file.

    Attributes:
        rows: Number of images that the folder lists.
        images: Usable images, by purpose and part.
        patients: Patients of these images, by purpose and part.
        rejected: Images that cannot be used, by reason.
        excluded: Readable images excluded from the stages, by reason.
        vendors: Usable images, by vendor.
    """

    rows: int
    images: dict[Purpose, dict[Part, int]]
    patients: dict[Purpose, dict[Part, int]]
    rejected: dict[str, int]
    excluded: dict[str, int]
    vendors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Cohort:
    """A prepared data set.

    Attributes:
        name: Its name, which seeds its split.
        images: The usable images, in table order.
        intake: The result of reading the folder.
        counts: Its counts.
    """

    name: str
    images: tuple[SplitImage, ...]
    intake: Intake
    counts: CohortCounts

    def samples(self, purpose: Purpose, part: Part) -> StoredSamples:
        """Return the samples of one purpose and part; each is read when it is accessed."""
        return StoredSamples(_chosen(self.images, purpose, part))

    def split_sha256(self) -> str:
        """Return the SHA-256 that identifies this data set and its split in a checkpoint.

        It covers the name and, for every image, its part and the SHA-256 of its file. It changes
        if a file is added, removed or changed, and with the name, seed, fold or split column.
        """
        images = sorted(f"{image.part} {image.case.result.image_sha256}" for image in self.images)
        text = "\n".join(["mamfed split 1", self.name, *images])
        return hashlib.sha256(text.encode()).hexdigest()


class StoredSamples(Sequence[Sample]):
    """Samples that stay on disk until they are accessed, by this process or another one."""

    def __init__(self, images: Sequence[SplitImage]) -> None:
        """Refer to the samples of these images, without reading any."""
        self.images = images

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> StoredSamples: ...
    def __getitem__(self, index: int | slice) -> Sample | StoredSamples:
        """Read one sample, or select some without reading them."""
        if isinstance(index, slice):
            return StoredSamples(self.images[index])
        name, stored = self.entry(index)
        return stored.load(name)

    def entry(self, index: int) -> tuple[str, StoredSample]:
        """Return the site's name for an image and its sample on disk, without reading it."""
        image = self.images[index]
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
    """Read a data set, or open a prepared folder, and split its patients.

    Args:
        name: The cohort's name.
        folder: A data set in one of the known layouts, or a prepared folder.
        size: Side of the samples in pixels.
        seed: The plan's seed, which determines the split.
        val_fraction: Fraction of the patients for validation, 0..1.
        test_fraction: Fraction of the patients for testing, 0..1.
        fold: Index of the fold and number of folds, which replace ``test_fraction``; together the
            folds test every patient once.
        cache_dir: Where to store samples of a folder that is not prepared.
        key_path: Key of an encrypted prepared folder.
        progress: Whether to show a progress bar on stderr.

    Raises:
        DataError: The folder, its table or all of its images cannot be used.
    """
    if is_prepared(folder):
        intake, store = _open_prepared(folder, size, key_path)
    else:
        intake, store = _ingest_raw(name, folder, size, cache_dir, progress)
    print_lines([f"{name}: {note}" for note in intake.notes] if progress else ())
    usable = _usable_images(folder, intake)
    parts = parts_of(name, folder, intake, usable, seed, val_fraction, test_fraction, fold)
    images = [SplitImage(c, parts[c.row.patient_id], _entry(store, c, folder)) for c in usable]
    return Cohort(name, tuple(images), intake, _counts(intake, images))


def read_images(
    name: str, folder: Path, *, size: int, cache_dir: Path, key_path: Path | None = None
) -> tuple[Intake, list[tuple[AcceptedImage, StoredSample]]]:
    """Read a data set's usable images, each with its sample, without splitting its patients.

    Args:
        name: The data set's name, for the progress bar.
        folder: A data set in one of the known layouts, or a prepared folder.
        size: Side of the samples in pixels; a prepared folder keeps its own.
        cache_dir: Where to store samples of a folder that is not prepared.
        key_path: Key of an encrypted prepared folder.

    Raises:
        DataError: The folder, its table or all of its images cannot be used.
    """
    if is_prepared(folder):
        intake, store = _open_prepared(folder, load_intake(folder)[1], key_path)
    else:
        intake, store = _ingest_raw(name, folder, size, cache_dir, progress=True)
    return intake, [(c, _entry(store, c, folder)) for c in _usable_images(folder, intake)]


def parts_of(
    name: str,
    folder: Path,
    intake: Intake,
    usable: Sequence[AcceptedImage],
    seed: int,
    val_fraction: float,
    test_fraction: float,
    fold: tuple[int, int] | None,
) -> dict[str, Part]:
    """Return each patient's part: declared in the table, stored with the folder, or drawn.

    The arguments and errors are those of :func:`load_cohort`.
    """

    def draw(patients: frozenset[str]) -> dict[str, Part]:
        groups = [group & patients for group in patient_strata(usable)]
        if fold is not None:
            return draw_fold(groups, name, seed, val_fraction, *fold)
        return draw_parts(groups, name, seed, val_fraction, test_fraction)

    patients = frozenset(case.row.patient_id for case in usable)
    parts = declared_parts(intake.statements)
    if parts is not None and fold is not None:
        raise DataError(
            f"{folder}: the table's split column already names the test patients, so folds cannot "
            "be drawn; remove the column, or set no folds"
        )
    if parts is None and is_prepared(folder):
        held_out = test_fraction if fold is None else f"fold {fold[0]} of {fold[1]}"
        split_key = f"{name} {seed} {val_fraction} {held_out}"
        parts = remembered_parts(folder, split_key, patients, draw)
    return parts or draw(patients)


def _open_prepared(folder: Path, size: int, key_path: Path | None) -> tuple[Intake, SampleStore]:
    intake, prepared_size, encrypted = load_intake(folder)
    if prepared_size != size:
        raise DataError(
            f"{folder}: prepared at {prepared_size} pixels, but the plan uses {size}; "
            f"run mamfed-client data prepare --size {size} into another folder"
        )
    return intake, open_store(folder, key_path, encrypted=encrypted)


def _ingest_raw(
    name: str, folder: Path, size: int, cache_dir: Path, progress: bool
) -> tuple[Intake, SampleStore]:
    manifest = read_folder(folder)
    store = SampleStore(cache_dir / SAMPLES)
    task = Task(size, store, site_secret())
    folder_id = pseudonym(task.secret, "folder", str(folder.resolve()), str(size))
    journal = Journal(cache_dir / "journals" / f"{folder_id}.jsonl")
    title = f"preparing {name}" if progress else ""
    intake = ingest(manifest, task, journal, progress=title)
    journal.finish(task.key(row) for row in manifest.rows)
    if progress:
        _warn_of_doubtful_masks(name, folder, intake)
    return intake, store


def _warn_of_doubtful_masks(name: str, folder: Path, intake: Intake) -> None:
    """Warn of doubtful masks, which are used here but would be rejected by ``data prepare``."""
    doubtful = sum(any(d.doubt.about_mask for d in case.doubts) for case in intake.accepted)
    if doubtful:
        masks = "1 doubtful mask is" if doubtful == 1 else f"{doubtful} doubtful masks are"
        command = f"mamfed-client data check {folder} --html check.html"
        print_lines([f"{name}: {masks} used; review with '{command}'"])


def _entry(store: SampleStore, case: AcceptedImage, folder: Path) -> StoredSample:
    entry = store.find(case.result.digest)
    if entry is None:
        raise DataError(
            f"{folder}: the sample of {case.row.image} is missing; prepare the folder again"
        )
    return entry


def patient_strata(cases: Sequence[AcceptedImage]) -> list[set[str]]:
    """Group patients by the rarest purpose they serve and by vendor (:func:`strata`)."""
    rarest: list[Purpose] = ["malignant", "benign", "without_malignancy"]
    return strata(
        (c.row.patient_id, min(rarest.index(p) for p in c.purposes), c.row.vendor or "")
        for c in cases
    )


def _counts(intake: Intake, all_images: Sequence[SplitImage]) -> CohortCounts:
    images: dict[Purpose, dict[Part, int]] = {}
    patients: dict[Purpose, dict[Part, int]] = {}
    for purpose in PURPOSES:
        by_part = {part: _chosen(all_images, purpose, part) for part in PARTS}
        images[purpose] = {part: len(chosen) for part, chosen in by_part.items()}
        patients[purpose] = {
            part: len({image.case.row.patient_id for image in chosen})
            for part, chosen in by_part.items()
        }
    return CohortCounts(
        rows=intake.files,
        images=images,
        patients=patients,
        rejected=tally(r.reason for r in intake.rejected),
        excluded=tally(intake.excluded.elements()),
        vendors=tally(p.case.row.vendor or "unknown" for p in all_images),
    )


def _chosen(all_images: Sequence[SplitImage], purpose: Purpose, part: Part) -> list[SplitImage]:
    return [image for image in all_images if purpose in image.case.purposes and image.part == part]


def tally(words: Iterable[str]) -> dict[str, int]:
    """Count words; the most frequent come first, ties in alphabetical order."""
    counts = Counter(str(word) for word in words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _usable_images(folder: Path, intake: Intake) -> list[AcceptedImage]:
    usable = [case for case in intake.accepted if case.purposes]
    if usable:
        return usable
    counts: Mapping[str, int] = tally(
        [*(r.reason for r in intake.rejected), *intake.excluded.elements()]
    )
    reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
    raise DataError(f"{folder}: no image can be used: {reasons}")
