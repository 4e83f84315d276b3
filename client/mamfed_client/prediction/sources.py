"""What a user points at -> images to predict: files, folders, rows of a prepared folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mamfed_client.datasets import read_folder
from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection
from mamfed_client.prediction.folder import is_predictions
from mamfed_client.preparation.prepared_folder import is_prepared, load_intake, open_store
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.preparation.sample_store import StoredSample
from mamfed_client.tables.field_parsers import Label
from mamfed_common.errors import DataError
from mamfed_common.runtime.files import refusal_words

LONE_STUDIES = frozenset({"cbis-ddsm", "inbreast"})
"""Layouts of collections in which a visit's images have studies of their own."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image to predict; nothing of it has been opened yet.

    Attributes:
        name: What the user calls it: a path, or a prepared folder and a row.
        row: Where it lies, and what a table says of it.
        entry: Its sample, of a prepared folder; None where it is read from its file.
        outcome: What the preparation noted of it.
        lone_studies: Whether it is of a collection that gives every image a study of its own.
    """

    name: str
    row: Row
    entry: StoredSample | None = None
    outcome: RowResult | None = None
    lone_studies: bool = False

    def said(self, secret: bytes) -> str:
        """Name what its row, its file's name and its preparation say of the image.

        All that an answer depends on beside the image's bytes; patients stay unknown.
        """
        row, outcome = self.row, self.outcome
        words: list[Any] = [
            row.image_path.name,
            row.patient_id,
            row.laterality,
            row.view,
            row.vendor,
        ]
        words += [row.spacing_mm, sorted(row.allow), self.lone_studies]
        words += [None if outcome is None else outcome.to_json()]
        return pseudonym(secret, "said of an image", json.dumps(words))

    def identity(self, secret: bytes) -> str:
        """Name the image by its content, the same however its file is called.

        Raises:
            Refusal: The file cannot be read.
        """
        if self.outcome is not None:
            return pseudonym(secret, "prepared image", self.outcome.digest)
        try:
            with self.row.image_path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileRejected(Reason.MISSING_IMAGE, refusal_words(error)) from None
        return pseudonym(secret, "image", content)


@dataclass(frozen=True, slots=True)
class FoundSources:
    """What all inputs hold.

    Attributes:
        sources: Images that can be tried.
        rejected: Others that a table or a folder names, but that cannot be.
        own: Files of earlier predictions, which are no mammograms.
    """

    sources: tuple[Source, ...]
    rejected: tuple[Rejection, ...]
    own: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """How inputs are read.

    Attributes:
        size: Side of the network's images in pixels.
        rows: Rows to take of prepared folders; empty takes all.
        layout: How folders are laid out; None finds out.
        allow: Reasons for which files are not refused.
        key_path: Key of prepared folders that are encrypted.
    """

    size: int
    rows: frozenset[int] = frozenset()
    layout: str | None = None
    allow: frozenset[Reason] = frozenset()
    key_path: Path | None = None


def find_sources(inputs: Sequence[Path], selection: Selection) -> FoundSources:
    """List the images of files, folders and prepared folders.

    Raises:
        DataError: An input does not exist, or a folder as a whole cannot be used.
    """
    found = []
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if selection.rows and not is_prepared(path):
            raise DataError(f"{path}: --row names rows of prepared folders, which this is not")
        found.append(_offered(path, selection))
    return FoundSources(
        tuple(source for offered in found for source in offered.sources),
        tuple(rejected for offered in found for rejected in offered.rejected),
        sum(offered.own for offered in found),
    )


def _offered(path: Path, selection: Selection) -> FoundSources:
    if path.is_file():
        row = Row(1, path.name, path, (), "", Label(None, ()), allow=selection.allow)
        return FoundSources((Source(str(path), row),), ())
    if is_prepared(path):
        return _prepared(path, selection)
    manifest = read_folder(path, selection.layout)
    ours = _Ours(path)
    rows = [row for row in manifest.rows if not ours.holds(row.image_path)]
    rejected = [r for r in manifest.rejected if not ours.holds(path / r.image)]
    sources = (
        Source(
            str(row.image_path),
            replace(row, allow=row.allow | selection.allow),
            lone_studies=manifest.layout in LONE_STUDIES,
        )
        for row in rows
    )
    own = len(manifest.rows) + len(manifest.rejected) - len(rows) - len(rejected)
    return FoundSources(tuple(sources), tuple(_placed(path, r) for r in rejected), own)


class _Ours:
    """Tells which files below a folder lie in predictions of an earlier call."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._known: dict[Path, bool] = {}

    def holds(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._known:
            inside = folder != self._top and folder.is_relative_to(self._top)
            self._known[folder] = is_predictions(folder) or (inside and self.holds(folder))
        return self._known[folder]


def _prepared(folder: Path, selection: Selection) -> FoundSources:
    """List the samples of a prepared folder.

    Raises:
        DataError: It is of another size than the network's, or lacks a row that was asked for.
    """
    intake, size, encrypted = load_intake(folder)
    if size != selection.size:
        raise DataError(
            f"{folder}: prepared at {size}, the checkpoint's plan asks for {selection.size}; "
            "name the original files instead"
        )
    store = open_store(folder, selection.key_path, encrypted=encrypted)
    wanted = selection.rows or {case.row.row_number for case in intake.cases}
    rejected = [r for r in intake.rejected if not selection.rows or r.row_number in wanted]
    sources = []
    for case in (case for case in intake.cases if case.row.row_number in wanted):
        entry = store.find(case.outcome.digest) if case.outcome.digest else None
        if entry is None:
            detail = "it serves no stage, so it has no sample; name its file instead"
            name = case.row.image
            rejected.append(Rejection(case.row.row_number, name, Reason.MISSING_IMAGE, detail))
        else:
            name = f"{folder}: {case.row.image}"
            sources.append(Source(name, case.row, entry, case.outcome))
    known = {*(s.row.row_number for s in sources), *(r.row_number for r in rejected)}
    if unknown := sorted(wanted - known):
        raise DataError(f"{folder}: row {unknown[0]} is not one of this folder's rows")
    return FoundSources(tuple(sources), tuple(_placed(folder, r) for r in rejected))


def _placed(folder: Path, rejected: Rejection) -> Rejection:
    """Name a rejected image as its path, or as its row of a prepared folder."""
    is_row = is_prepared(folder)
    name = f"{folder}: {rejected.image}" if is_row else str(folder / rejected.image)
    return replace(rejected, image=name)
