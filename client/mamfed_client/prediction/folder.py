"""The folder of predictions: one model and configuration, with a subfolder for each image.

``model.json`` holds the fingerprint of model and configuration. Each image's record is written
last and holds a fingerprint of the image and its metadata: only an unchanged image is skipped.

Folder and file names identify no patient, as images and studies have pseudonyms. Their contents do:
a segmentation repeats its source's header, and records name the source file. Keep the folder only
where the images may be kept.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamfed_client.imaging.preprocess import PREPARE_VERSION
from mamfed_client.prediction.kinds import DEFAULT
from mamfed_client.preparation.prepare_row import READING_VERSION
from mamfed_client.preparation.prepared_folder import alone
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, STATE_BYTES, read_values
from mamfed_common.runtime.files import cannot_write, private_directory, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.lock import LOCK
from mamfed_common.runtime.output_checks import check_folder as check_place

MODEL = "model.json"
RECORD = "result.json"
IMAGES = "images"
STUDIES = "studies"
SUMMARY = "predictions.json"
"""What the whole folder holds, see ``account.py``."""
FORMAT = 2
ANSWER_VERSION = 1
"""Increase it with every change that alters the results for the same network and image."""
MAKER = "mamfed-client predict"

Record = dict[str, Any]


def is_predictions(folder: Path) -> bool:
    """Return whether ``mamfed-client predict`` made a folder."""
    try:
        model = read_values(folder / MODEL, DOCUMENT_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(model, dict) and (
        model.get("made_by") == MAKER or _is_format_1(folder, model)
    )


def _is_format_1(folder: Path, model: Mapping[str, Any]) -> bool:
    """Return whether a folder is from mamfed 0.1.0, which did not write ``made_by``."""
    return {"format", "weights_sha256", "segmentation"} <= model.keys() and (
        folder / IMAGES
    ).is_dir()


def dicom_files(path: Path) -> list[Path]:
    """Return the DICOM objects of a folder of predictions, of all images and kinds.

    Raises:
        OutputError: Its records cannot be read.
    """
    folder = PredictionFolder(path)
    return [
        folder.image(record["image"]) / Path(name).name
        for record in folder.records()
        for name in record["files"]
        if name.endswith(".dcm")
    ]


class PredictionFolder:
    """A folder of one model's predictions."""

    def __init__(self, path: Path) -> None:
        """Open a folder of predictions."""
        self.path = path

    def find(self, identity: str) -> Record | None:
        """Return the record of an image, if it was predicted and its record is complete."""
        try:
            record: Record = read_values(self.image(identity) / RECORD, STATE_BYTES)
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("format") == FORMAT else None

    def forget(self, record: Record) -> None:
        """Remove an image's results: its record first, then the files that it lists.

        Raises:
            OutputError: They cannot be removed.
        """
        folder = self.image(record["image"])
        try:
            (folder / RECORD).unlink(missing_ok=True)
            for name in record["files"]:
                (folder / Path(name).name).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        except OSError as error:
            raise cannot_write(folder, error) from None

    def note(self, record: Record, **facts: Any) -> None:
        """Update facts in an image's record, such as its source; None removes a fact.

        Raises:
            OutputError: It cannot be written.
        """
        if any(record.get(key) != value for key, value in facts.items()):
            forgotten = {key for key, value in facts.items() if value is None}
            known = {k: v for k, v in (record | facts).items() if k not in forgotten}
            self.keep(record["image"], {}, known)

    def image(self, identity: str) -> Path:
        """Return the folder of an image's results."""
        return self.path / IMAGES / identity

    def keep(self, identity: str, files: Mapping[str, bytes], record: Record) -> None:
        """Write an image's files and then its record, which marks them as complete.

        Raises:
            OutputError: They cannot be written.
        """
        folder = self.image(identity)
        try:
            private_directory(folder)
            for name, content in files.items():
                write_atomic(folder / name, content)
            known = {"files": sorted(files), **record}
            write_atomic(folder / RECORD, _json({"format": FORMAT, **known}))
        except OSError as error:
            raise cannot_write(folder, error) from None

    def records(self) -> list[Record]:
        """Return the records of all images, by study, side and view."""
        folders = sorted((self.path / IMAGES).glob("*"))
        records = [record for folder in folders if (record := self.find(folder.name))]
        return sorted(records, key=lambda r: (r["study"], r["laterality"] or "", r["view"] or ""))


def check_folder(path: Path, question: Fingerprint) -> None:
    """Refuse a folder with other content, before any work is done.

    Args:
        path: The folder, which need not exist.
        question: Everything on which its predictions depend, except the images.

    Raises:
        OutputError: It holds predictions of another question, or other files.
    """
    check_place(path, _is_begun, "predictions")
    if not (path / MODEL).exists():
        return
    try:
        model = read_values(path / MODEL, DOCUMENT_BYTES)
    except (OSError, ValueError):
        raise OutputError(f"{path / MODEL}: damaged; name a new folder") from None
    if not is_predictions(path):
        raise OutputError(f"{path}: holds other files, and no predictions; choose a new folder")
    question.check(model, f"{path}: holds other predictions", "name a new folder")


def _is_begun(path: Path) -> bool:
    return (path / MODEL).exists() or all(entry.name == LOCK for entry in path.iterdir())


@contextmanager
def open_folder(path: Path, question: Fingerprint) -> Iterator[PredictionFolder]:
    """Open a folder for one process, and record in it what its predictions depend on.

    Raises:
        DataError: Another process works in it.
        OutputError: It holds something else, or cannot be written.
    """
    check_folder(path, question)
    with alone(path):
        try:
            question.write(path / MODEL)
            private_directory(path / IMAGES)
            private_directory(path / STUDIES)
        except OSError as error:
            raise cannot_write(path, error) from None
        yield PredictionFolder(path)


def question_of(
    model: Mapping[str, Any],
    encoding: str,
    device: str,
    secret: bytes,
    kinds: Collection[str] = DEFAULT,
) -> Fingerprint:
    """Return a fingerprint of everything predictions depend on, except the image and its metadata.

    Args:
        model: The result of ``LoadedModel.to_json``.
        encoding: Encoding of segmentations.
        device: Type of device that the network runs on, since results differ in their last bits.
        secret: The site's secret, from which pseudonyms of images are derived.
        kinds: Kinds of DICOM objects; the default is not part of it, as in folders made before
            there was a choice.
    """
    return Fingerprint.of(
        made_by=MAKER,
        format=FORMAT,
        answer_version=ANSWER_VERSION,
        prepare_version=PREPARE_VERSION,
        reading_version=READING_VERSION,
        **model,
        segmentation=encoding,
        device=device,
        site=pseudonym(secret, "secret"),
        **({} if set(kinds) == set(DEFAULT) else {"objects": sorted(kinds)}),
    )


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
