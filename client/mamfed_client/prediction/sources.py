"""The images to predict, listed from files, folders and prepared folders."""

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
from mamfed_common.runtime.bounded import open_regular
from mamfed_common.runtime.files import refusal_words

LONE_STUDIES = frozenset({"cbis-ddsm", "inbreast"})
"""Layouts of collections that give each image of a visit its own study."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image to predict, not opened yet.

    Attributes:
        name: Its name for the user: a path, or a prepared folder and a row.
        row: Its file and the metadata from a table.
        entry: Its sample in a prepared folder; None if it is read from its file.
        outcome: The result of its preparation.
        lone_studies: Whether it is from a collection that gives each image its own study.
    """

    name: str
    row: Row
    entry: StoredSample | None = None
    outcome: RowResult | None = None
    lone_studies: bool = False

    def metadata_id(self, secret: bytes) -> str:
        """Return a pseudonym of the image's metadata from its row, file name and preparation.

        It covers everything besides the image's bytes on which the results depend, and reveals no
        patient.
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
        """Return a pseudonym of the image's content, independent of its file name.

        Raises:
            FileRejected: The file cannot be read.
        """
        if self.outcome is not None:
            return pseudonym(secret, "prepared image", self.outcome.digest)
        try:
            with open_regular(self.row.image_path) as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileRejected(Reason.MISSING_IMAGE, refusal_words(error)) from None
        return pseudonym(secret, "image", content)


@dataclass(frozen=True, slots=True)
class FoundSources:
    """The images found in all inputs.

    Attributes:
        sources: Images to try.
        rejected: Images that a table or a folder lists but that cannot be used.
        own: Number of files of earlier predictions, which are not mammograms.
    """

    sources: tuple[Source, ...]
    rejected: tuple[Rejection, ...]
    own: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """How to read the inputs.

    Attributes:
        size: Side of the network's images in pixels.
        rows: Rows of prepared folders to use; empty: all.
        layout: Layout of the folders; None: auto-detected.
        allow: Reasons for which files are not rejected.
        key_path: Key file of encrypted prepared folders.
    """

    size: int
    rows: frozenset[int] = frozenset()
    layout: str | None = None
    allow: frozenset[Reason] = frozenset()
    key_path: Path | None = None


def find_sources(inputs: Sequence[Path], selection: Selection) -> FoundSources:
    """List the images in files, folders and prepared folders.

    Raises:
        DataError: An input does not exist, or a folder as a whole cannot be used.
    """
    results = []
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if selection.rows and not is_prepared(path):
            raise DataError(f"{path}: not a prepared folder, but --row needs one")
        results.append(_list_input(path, selection))
    return FoundSources(
        tuple(source for result in results for source in result.sources),
        tuple(rejected for result in results for rejected in result.rejected),
        sum(result.own for result in results),
    )


def _list_input(path: Path, selection: Selection) -> FoundSources:
    if path.is_file():
        row = Row(1, path.name, path, (), "", Label(None, ()), allow=selection.allow)
        return FoundSources((Source(str(path), row),), ())
    if is_prepared(path):
        return _list_prepared(path, selection)
    manifest = read_folder(path, selection.layout)
    own_files = _OwnFiles(path)
    rows = [row for row in manifest.rows if row.image_path not in own_files]
    rejected = [r for r in manifest.rejected if path / r.image not in own_files]
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


class _OwnFiles:
    """The files below a folder that belong to predictions of an earlier call."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._known: dict[Path, bool] = {}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._known:
            inside = folder != self._top and folder.is_relative_to(self._top)
            self._known[folder] = is_predictions(folder) or (inside and folder in self)
        return self._known[folder]


def _list_prepared(folder: Path, selection: Selection) -> FoundSources:
    """List the samples of a prepared folder.

    Raises:
        DataError: Its size differs from the network's, or it lacks a selected row.
    """
    intake, size, encrypted = load_intake(folder)
    if size != selection.size:
        raise DataError(
            f"{folder}: prepared at {size}, but the checkpoint's plan needs {selection.size}; "
            "use the original files instead"
        )
    store = open_store(folder, selection.key_path, encrypted=encrypted)
    wanted = selection.rows or {case.row.row_number for case in intake.accepted}
    rejected = [r for r in intake.rejected if not selection.rows or r.row_number in wanted]
    sources = []
    for case in (case for case in intake.accepted if case.row.row_number in wanted):
        entry = store.find(case.result.digest) if case.result.digest else None
        if entry is None:
            detail = "no stage uses it, so it has no sample; use its file instead"
            name = case.row.image
            rejected.append(Rejection(case.row.row_number, name, Reason.MISSING_IMAGE, detail))
        else:
            name = f"{folder}: {case.row.image}"
            sources.append(Source(name, case.row, entry, case.result))
    known = {*(s.row.row_number for s in sources), *(r.row_number for r in rejected)}
    if unknown := sorted(wanted - known):
        raise DataError(f"{folder}: no row {unknown[0]} in this folder")
    return FoundSources(tuple(sources), tuple(_placed(folder, r) for r in rejected))


def _placed(folder: Path, rejected: Rejection) -> Rejection:
    """Return a rejected image named by its path, or by its row of a prepared folder."""
    is_row = is_prepared(folder)
    name = f"{folder}: {rejected.image}" if is_row else str(folder / rejected.image)
    return replace(rejected, image=name)
