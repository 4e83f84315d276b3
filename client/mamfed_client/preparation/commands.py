"""``mamfed-client data``: from a hospital's folder to trusted training data."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mamfed_client.annotations.classes import MalignantClasses
from mamfed_client.datasets import read_folder
from mamfed_client.datasets.manifest import Manifest, Row
from mamfed_client.imaging.rejections import JUDGED, Reason
from mamfed_client.preparation.ingest import Intake, ingest, known_rows
from mamfed_client.preparation.journal import Journal
from mamfed_client.preparation.prepare_row import CHECK_SIZE, Task, paths_of
from mamfed_client.preparation.prepared_folder import (
    JOURNAL,
    MANIFEST,
    SAMPLES,
    PreparedKind,
    alone,
    is_prepared,
    prepared_as,
    prepared_images,
    save_intake,
)
from mamfed_client.preparation.pseudonyms import pseudonym, read_key, site_secret
from mamfed_client.preparation.sample_store import SampleStore, default_cache_dir
from mamfed_client.preparation.summary import summarise_intake
from mamfed_common.errors import DataError
from mamfed_common.runtime.lock import LOCK
from mamfed_common.runtime.output_checks import check_folder, check_outside

BYTES_PER_PIXEL = 3
"""Of a stored sample: two of image, one of flags."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to take in.

    Attributes:
        folder: The data set.
        layout: How it is laid out; None finds out.
        allow: Reasons for which its files are not refused.
        take: What annotations mark as malignant, where neither file nor table says it.
    """

    folder: Path
    layout: str | None = None
    allow: frozenset[Reason] = frozenset()
    take: MalignantClasses = field(default_factory=MalignantClasses)

    def manifest(self) -> Manifest:
        """List what the folder offers.

        Raises:
            DataError: The folder or its table cannot be used.
        """
        if is_prepared(self.folder):
            raise DataError(f"{self.folder}: a prepared folder; name the one it was made from")
        manifest = read_folder(self.folder, self.layout)
        return replace(manifest, rows=[self._told(row) for row in manifest.rows])

    def _told(self, row: Row) -> Row:
        """Add to a row what the user says of all; what its table says of it comes first."""
        annotations = tuple(replace(a, take=a.take.or_else(self.take)) for a in row.annotations)
        return replace(row, allow=row.allow | self.allow, annotations=annotations)


def check(
    source: Source, *, fresh: bool = False, dry_run: bool = False
) -> tuple[Intake | None, dict[str, Any]]:
    """Read all files of a folder and change nothing in it.

    What is found is remembered in the user's own cache, under pseudonyms, so that an interrupted
    check goes on where it was.

    Args:
        source: What to read.
        fresh: Whether to read files again that an earlier check has read.
        dry_run: Whether to say only what would be done.

    Returns:
        What was taken in, None for a dry run; and counts for people and programs.

    Raises:
        DataError: The folder or its table cannot be used.
    """
    task = Task(CHECK_SIZE, None, site_secret(), verify=fresh)
    manifest = source.manifest()
    journal = Journal(default_cache_dir() / "checks" / f"{_folder_key(source, task)}.jsonl")
    if dry_run:
        return None, _forecast(manifest, task, journal)
    intake = ingest(manifest, task, journal, progress="reading")
    journal.finish(task.key(row) for row in manifest.rows)
    return intake, summarise_intake(intake)


def prepare_folder(
    source: Source,
    out: Path,
    *,
    size: int,
    key_path: Path | None = None,
    verify: bool = False,
    accept_doubts: bool = False,
    dry_run: bool = False,
) -> tuple[Intake | None, dict[str, Any]]:
    """Take in a folder and keep its samples, so that training needs the original files no more.

    It may be killed at any time: started again it goes on, and ends with the same bytes.

    Args:
        source: What to read.
        out: The prepared folder.
        size: Side of the samples in pixels.
        key_path: Key to encrypt samples with, made if absent; None leaves them in the clear.
        verify: Whether to read files again though their sizes and times are unchanged.
        accept_doubts: Whether masks that are doubtful and not reviewed are used.
        dry_run: Whether to say only what would be done.

    Returns:
        As :func:`check`.

    Raises:
        DataError: The folder cannot be used, or ``out`` holds another one's images.
        OutputError: ``out`` lies in the folder, holds other files, or cannot be written.
        SetupError: Another command works in ``out``.
    """
    secret = site_secret()
    manifest = source.manifest()
    if dry_run:
        key = read_key(key_path, "key") if key_path and key_path.is_file() else None
        task = Task(size, SampleStore(out / SAMPLES, key), secret)
        forecast = _forecast(manifest, task, Journal(out / JOURNAL))
        return None, forecast | _disk(forecast["to_read"], out, size)
    known_as = pseudonym(secret, "folder", str(source.folder.resolve()))
    check_outside(out, [source.folder])
    check_folder(out, _is_begun, "prepared folder")
    key = read_key(key_path, "key", make=not is_prepared(out)) if key_path else None
    key_known_as = pseudonym(key, "key") if key else ""
    kind = PreparedKind(known_as, size, key is not None, key_known_as, pseudonym(secret, "secret"))
    _check_prepared(out, kind)
    with alone(out):
        store = SampleStore(out / SAMPLES, key)
        task = Task(size, store, secret, verify)
        journal = Journal(out / JOURNAL)
        intake = ingest(manifest, task, journal, progress="preparing", accept_doubts=accept_doubts)
        _check_loss(out, intake)
        journal.finish(task.key(row) for row in manifest.rows)
        save_intake(out, intake, kind, secret)
        store.keep_only({case.outcome.digest for case in intake.cases})
    return intake, summarise_intake(intake)


def _is_begun(out: Path) -> bool:
    """Tell whether a folder was prepared before, or begun to be."""
    return is_prepared(out) or (out / LOCK).exists()


def _check_loss(out: Path, intake: Intake) -> None:
    """Refuse to forget most of a prepared folder because a disk is not mounted."""
    if not is_prepared(out):
        return
    judged = sum(rejected.reason in JUDGED for rejected in intake.rejected)
    before, now = prepared_images(out), len(intake.cases)
    if 2 * (now + judged) < before:
        raise DataError(
            f"{out}: of {before} images {now} are left; is a disk missing? The prepared folder is "
            "as it was; if this is meant, choose a new one"
        )


def _check_prepared(out: Path, kind: PreparedKind) -> None:
    """Refuse to mix data sets, sizes, keys, secrets, or samples in the clear with others."""
    if is_prepared(out):
        was = prepared_as(out)
        if was.secret != kind.secret:
            raise DataError(
                f"{out}: prepared under another site secret; put that back (see MAMFED_SECRET)"
            )
        if was.encrypted and kind.encrypted and was.key != kind.key:
            raise DataError(f"{out}: encrypted under another key; name that one with --key")
        if (was.size, was.encrypted) != (kind.size, kind.encrypted):
            raise DataError(
                f"{out}: prepared at {was.size}, {'' if was.encrypted else 'not '}encrypted; "
                "choose another folder"
            )
        if was.source != kind.source:
            raise DataError(
                f"{out}: prepared from another folder; choose a new one, or remove {MANIFEST} "
                "there if the data set has only moved"
            )


def _forecast(manifest: Manifest, task: Task, journal: Journal) -> dict[str, Any]:
    """Say what there is to do, without opening an image."""
    known = known_rows(manifest, task, journal)
    present = [path for row in manifest.rows for path in paths_of(row) if path.is_file()]
    return {
        "dry_run": True,
        "layout": manifest.layout,
        "files": len(manifest.rows) + len(manifest.rejected),
        "already_rejected": len(manifest.rejected),
        "known": known,
        "to_read": len(manifest.rows) - known,
        "bytes": sum(path.stat().st_size for path in set(present)),
    }


def _disk(samples: int, out: Path, size: int) -> dict[str, int]:
    """Say how much the samples will take, at most, and how much there is."""
    existing = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    return {
        "sample_bytes": samples * size * size * BYTES_PER_PIXEL,
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _folder_key(source: Source, task: Task) -> str:
    words = [str(source.folder.resolve()), str(source.layout), *sorted(source.allow)]
    words += [str(source.take)] if source.take != MalignantClasses() else []
    return pseudonym(task.secret, "folder", *words)
