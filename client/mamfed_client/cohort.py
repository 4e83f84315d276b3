"""One data set at a site, prepared for training: samples by purpose and part, and what they are."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

from rich.progress import track

from mamfed_client.cache import Entry, Source, cached
from mamfed_client.labels import LeftOut, assign_purposes
from mamfed_client.manifest import Manifest, Row, read_manifest
from mamfed_client.rejections import Refusal, Rejection, rejection
from mamfed_client.split import declared_parts, draw_parts
from mamfed_common.errors import DataError
from mamfed_common.samples import Sample
from mamfed_common.terminal import console
from mamfed_common.weights import PARTS, PURPOSES, Part, Purpose

MOST_THREADS = 8
"""A full-size mammogram takes some 300 MB while it is prepared."""


@dataclass(frozen=True, slots=True)
class Case:
    """A usable image.

    Attributes:
        row: Its row of the table.
        purposes: What it serves.
        part: The part of the split that its patient is in.
        entry: Its prepared sample.
    """

    row: Row
    purposes: frozenset[Purpose]
    part: Part
    entry: Entry

    @property
    def vendor(self) -> str:
        """Who made the unit: by the table, else by the image file."""
        return self.row.vendor or self.entry.vendor or "unknown"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a cohort holds; nothing here names a patient or a file.

    Attributes:
        rows: Rows of the table.
        images: Usable images by purpose, then by part.
        patients: Patients behind them, likewise.
        rejected: Rows that cannot be used, by reason.
        left_out: Readable rows that a rule keeps out of the stages, by reason.
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
        cases: The usable images in the table's order.
        rejected: The rows that cannot be used, likewise.
        counts: What it holds.
    """

    name: str
    cases: tuple[Case, ...]
    rejected: tuple[Rejection, ...]
    counts: Counts

    def samples(self, purpose: Purpose, part: Part) -> Sequence[Sample]:
        """Return the samples of one purpose and part, each read when it is looked at."""
        return CachedSamples(_chosen(self.cases, purpose, part))


class CachedSamples(Sequence[Sample]):
    """Samples that stay on disk until one is looked at."""

    def __init__(self, cases: Sequence[Case]) -> None:
        """Stand for the samples of these cases."""
        self.cases = cases

    def __len__(self) -> int:
        """Count the samples without reading any."""
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> CachedSamples: ...
    def __getitem__(self, index: int | slice) -> Sample | CachedSamples:
        """Read one sample, or stand for some of them."""
        if isinstance(index, slice):
            return CachedSamples(self.cases[index])
        case = self.cases[index]
        return case.entry.load(case.row.image)


def load_cohort(
    name: str,
    folder: Path,
    *,
    size: int,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    cache_dir: Path,
    progress: bool = False,
) -> Cohort:
    """Read a folder's table, prepare its images and split its patients.

    Args:
        name: The cohort's name.
        folder: Holds ``labels.csv`` and the images.
        size: Side of the samples in pixels.
        seed: The plan's seed, which draws the split.
        val_fraction: Share of the patients for validation, 0..1.
        test_fraction: Share of the patients for testing, 0..1.
        cache_dir: Where prepared samples are kept.
        progress: Whether to show a progress bar on stderr.

    Raises:
        DataError: The folder or its table cannot be used, or no row of it.
    """
    manifest = read_manifest(folder, name)
    declared = declared_parts(manifest.statements)
    purposes, left_out = assign_purposes(manifest.rows, manifest.statements)
    sources = {
        row.row_number: _source(row, purposes[row.row_number], size)
        for row in manifest.rows
        if purposes[row.row_number]
    }
    entries, refusals = _prepare_all(sources, cache_dir, f"preparing {name}", progress)
    usable = [row for row in manifest.rows if row.row_number in entries]
    rejected = _all_rejected(manifest, refusals)
    if not usable:
        raise DataError(_nothing_usable(manifest.folder, rejected, left_out))
    strata = _strata(usable, purposes)
    parts = declared or draw_parts(strata, name, seed, val_fraction, test_fraction)
    cases = [
        Case(row, purposes[row.row_number], parts[row.patient_id], entries[row.row_number])
        for row in usable
    ]
    rows = len(manifest.rows) + len(manifest.rejected)
    return Cohort(name, tuple(cases), rejected, _counts(rows, cases, rejected, left_out))


def _source(row: Row, purposes: frozenset[Purpose], size: int) -> Source:
    """Say what a row's sample is made of. Only a malignant row's mask is a target."""
    mask_path = row.mask_path if "malignant" in purposes else None
    return Source(row.image_path, mask_path, row.laterality, size)


def _prepare_all(
    sources: dict[int, Source], cache_dir: Path, description: str, progress: bool
) -> tuple[dict[int, Entry], dict[int, Refusal]]:
    """Prepare the images of many rows at once: OpenCV and hashing leave the interpreter's lock."""
    entries: dict[int, Entry] = {}
    refusals: dict[int, Refusal] = {}
    with _threads() as pool, warnings.catch_warnings():
        # pydicom's warnings quote the file, patients included; what matters becomes a Refusal.
        warnings.filterwarnings("ignore", module="pydicom")
        results = pool.map(partial(_entry_or_refusal, cache_dir=cache_dir), sources.values())
        shown = track(results, description, len(sources), console=console(), disable=not progress)
        for row_number, result in zip(sources, shown, strict=True):
            if isinstance(result, Entry):
                entries[row_number] = result
            else:
                refusals[row_number] = result
    return entries, refusals


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Start threads; an interruption does not wait for the images still in the queue."""
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _entry_or_refusal(source: Source, cache_dir: Path) -> Entry | Refusal:
    try:
        return cached(source, cache_dir)
    except Refusal as refusal:
        return refusal


def _all_rejected(manifest: Manifest, refusals: dict[int, Refusal]) -> tuple[Rejection, ...]:
    """Join the rows that the table made unusable and those that their files did, in order."""
    refused = [
        rejection(row.row_number, row.image, refusals[row.row_number])
        for row in manifest.rows
        if row.row_number in refusals
    ]
    return tuple(sorted([*manifest.rejected, *refused], key=lambda r: r.row_number))


def _strata(rows: Sequence[Row], purposes: dict[int, frozenset[Purpose]]) -> list[set[str]]:
    """Group patients by the rarest purpose they serve, so that every part gets some of each."""
    strata: list[set[str]] = []
    placed: set[str] = set()
    for purpose in ("malignant", "benign", "without_malignancy"):
        found = {row.patient_id for row in rows if purpose in purposes[row.row_number]}
        strata.append(found - placed)
        placed |= found
    return strata


def _counts(
    rows: int, cases: Sequence[Case], rejected: Sequence[Rejection], left_out: Counter[LeftOut]
) -> Counts:
    images: dict[Purpose, dict[Part, int]] = {}
    patients: dict[Purpose, dict[Part, int]] = {}
    for purpose in PURPOSES:
        found = {part: _chosen(cases, purpose, part) for part in PARTS}
        images[purpose] = {part: len(some) for part, some in found.items()}
        patients[purpose] = {part: len({c.row.patient_id for c in s}) for part, s in found.items()}
    return Counts(
        rows=rows,
        images=images,
        patients=patients,
        rejected=_tally(r.reason for r in rejected),
        left_out=_tally(left_out.elements()),
        vendors=_tally(case.vendor for case in cases),
    )


def _chosen(cases: Sequence[Case], purpose: Purpose, part: Part) -> list[Case]:
    return [case for case in cases if purpose in case.purposes and case.part == part]


def _tally(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(str(word) for word in words).most_common())


def _nothing_usable(folder: Path, rejected: Sequence[Rejection], left_out: Counter[LeftOut]) -> str:
    tally = _tally([*(r.reason for r in rejected), *left_out.elements()])
    found = ", ".join(f"{count} x {reason}" for reason, count in tally.items())
    return f"{folder}: no row can be used: {found}"
