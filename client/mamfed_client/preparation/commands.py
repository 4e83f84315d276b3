"""The work behind ``mamfed-client data check`` and ``data prepare``."""

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
"""Size of a stored sample: two bytes for the image, one for the flags."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to read.

    Attributes:
        folder: The data set.
        layout: Its layout; None detects it.
        allow: Reasons for which its files are not rejected.
        malignant: Classes that count as malignant unless the annotation file or the table says so.
    """

    folder: Path
    layout: str | None = None
    allow: frozenset[Reason] = frozenset()
    malignant: MalignantClasses = field(default_factory=MalignantClasses)

    def manifest(self) -> Manifest:
        """List the images in the folder.

        Raises:
            DataError: The folder or its table cannot be used.
        """
        if is_prepared(self.folder):
            raise DataError(
                f"{self.folder}: this is a prepared folder; name the folder it was made from"
            )
        manifest = read_folder(self.folder, self.layout)
        return replace(manifest, rows=[self._with_options(row) for row in manifest.rows])

    def _with_options(self, row: Row) -> Row:
        """Apply the user's options to a row; values in its table take precedence."""
        annotations = tuple(
            replace(a, malignant=a.malignant.or_else(self.malignant)) for a in row.annotations
        )
        return replace(row, allow=row.allow | self.allow, annotations=annotations)


def check(
    source: Source, *, fresh: bool = False, dry_run: bool = False
) -> tuple[Intake | None, dict[str, Any]]:
    """Read all files of a folder without changing anything in it.

    Results are kept in the user's cache under pseudonyms, so that an interrupted check can resume.

    Args:
        source: What to read.
        fresh: Whether to read files again that an earlier check has read.
        dry_run: Whether to only forecast the work.

    Returns:
        The intake, or None for a dry run; and the document to print.

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
    """Read a folder and store its samples, so that training no longer needs the original files.

    A crash loses no finished work: the same command resumes, and produces the same bytes.

    Args:
        source: What to read.
        out: The prepared folder.
        size: Side of the samples in pixels.
        key_path: File with the encryption key, created if absent; None stores samples unencrypted.
        verify: Whether to read files again even if their sizes and times are unchanged.
        accept_doubts: Whether to use doubtful masks that nobody has reviewed.
        dry_run: Whether to only forecast the work.

    Returns:
        The intake, or None for a dry run; and the document to print.

    Raises:
        DataError: The folder cannot be used, or ``out`` was prepared from another folder.
        OutputError: ``out`` is inside the folder, holds other files, or cannot be written.
        SetupError: Another command is using ``out``.
    """
    secret, manifest = site_secret(), source.manifest()
    if dry_run:
        return None, _forecast_of_samples(manifest, out, size, key_path, secret)
    _check_place(source, out)
    key = read_key(key_path, "key", make=not is_prepared(out)) if key_path else None
    kind = _kind_to_prepare(source, out, size, key, secret)
    task = Task(size, SampleStore(out / SAMPLES, key), secret, verify)
    intake = _fill(out, manifest, task, kind, accept_doubts=accept_doubts)
    return intake, summarise_intake(intake)


def _check_place(source: Source, out: Path) -> None:
    check_outside(out, [source.folder])
    check_folder(out, _is_started, "prepared folder")


def _kind_to_prepare(
    source: Source, out: Path, size: int, key: bytes | None, secret: bytes
) -> PreparedKind:
    """Return the kind of a prepared folder, after checking that ``out`` holds no other kind."""
    kind = PreparedKind(
        source=pseudonym(secret, "folder", str(source.folder.resolve())),
        size=size,
        encrypted=key is not None,
        key=pseudonym(key, "key") if key else "",
        secret=pseudonym(secret, "secret"),
    )
    _check_prepared(out, kind)
    return kind


def _fill(
    out: Path, manifest: Manifest, task: Task, kind: PreparedKind, *, accept_doubts: bool
) -> Intake:
    """Store the samples of all usable images in the prepared folder, and delete those of others."""
    with alone(out):
        journal = Journal(out / JOURNAL)
        intake = ingest(manifest, task, journal, progress="preparing", accept_doubts=accept_doubts)
        _check_loss(out, intake)
        journal.finish(task.key(row) for row in manifest.rows)
        save_intake(out, intake, kind, task.secret)
        if task.store is not None:
            task.store.keep_only({case.result.digest for case in intake.accepted})
    return intake


def _is_started(out: Path) -> bool:
    """Tell whether a folder has been prepared, completely or in part."""
    return is_prepared(out) or (out / LOCK).exists()


def _check_loss(out: Path, intake: Intake) -> None:
    """Refuse to discard most of a prepared folder, for example because a disk is not mounted.

    Raises:
        DataError: Fewer than half of the images are left.
    """
    if not is_prepared(out):
        return
    judged = sum(rejected.reason in JUDGED for rejected in intake.rejected)
    before, now = prepared_images(out), len(intake.accepted)
    if 2 * (now + judged) < before:
        raise DataError(
            f"{out}: only {now} of {before} images are left; is a disk missing? The prepared "
            "folder is unchanged; if this is intended, prepare into a new folder"
        )


def _check_prepared(out: Path, kind: PreparedKind) -> None:
    """Refuse to mix data sets, sizes, keys, site secrets, or encrypted and unencrypted samples.

    Raises:
        DataError: The folder was prepared differently.
    """
    if not is_prepared(out):
        return
    previous = prepared_as(out)
    if previous.secret != kind.secret:
        raise DataError(
            f"{out}: prepared with another site secret; restore that secret (see MAMFED_SECRET)"
        )
    if previous.encrypted and kind.encrypted and previous.key != kind.key:
        raise DataError(f"{out}: encrypted with another key; name that key file with --key")
    if (previous.size, previous.encrypted) != (kind.size, kind.encrypted):
        raise DataError(
            f"{out}: prepared at {previous.size} pixels, "
            f"{'' if previous.encrypted else 'not '}encrypted; choose another folder"
        )
    if previous.source != kind.source:
        raise DataError(
            f"{out}: prepared from another folder; choose a new one, or remove {MANIFEST} from it "
            "if the data set has only moved"
        )


def _forecast(manifest: Manifest, task: Task, journal: Journal) -> dict[str, Any]:
    """Forecast the work without opening an image."""
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


def _forecast_of_samples(
    manifest: Manifest, out: Path, size: int, key_path: Path | None, secret: bytes
) -> dict[str, Any]:
    key = read_key(key_path, "key") if key_path and key_path.is_file() else None
    task = Task(size, SampleStore(out / SAMPLES, key), secret)
    forecast = _forecast(manifest, task, Journal(out / JOURNAL))
    return forecast | _disk(forecast["to_read"], out, size)


def _disk(samples: int, out: Path, size: int) -> dict[str, int]:
    """Return the maximum size of the samples and the free disk space, in bytes."""
    existing = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    return {
        "sample_bytes": samples * size * size * BYTES_PER_PIXEL,
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _folder_key(source: Source, task: Task) -> str:
    words = [str(source.folder.resolve()), str(source.layout), *sorted(source.allow)]
    if source.malignant != MalignantClasses():
        words.append(str(source.malignant))
    return pseudonym(task.secret, "folder", *words)
