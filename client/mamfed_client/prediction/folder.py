"""The folder that predictions go to: one model's, one folder an image, its record written last.

It names no patient: images and studies go by pseudonyms. What lies in it does: a segmentation
repeats its source's header, and records name the source file. It belongs where the images may be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamfed_client.prepared import LOCK, alone
from mamfed_client.preprocess import PREPARE_VERSION
from mamfed_common.errors import OutputError
from mamfed_common.files import private_directory, write_atomic

MODEL = "model.json"
RECORD = "result.json"
IMAGES = "images"
STUDIES = "studies"
FORMAT = 1

Record = dict[str, Any]


class PredictionFolder:
    """A folder of one model's predictions."""

    def __init__(self, path: Path) -> None:
        """Stand for a folder."""
        self.path = path

    def find(self, identity: str) -> Record | None:
        """Return the record of an image, if it was predicted and its record is whole."""
        try:
            record: Record = json.loads((self.image(identity) / RECORD).read_bytes())
        except (OSError, ValueError):
            return None
        return record if record.get("format") == FORMAT else None

    def image(self, identity: str) -> Path:
        """Return where an image's results lie."""
        return self.path / IMAGES / identity

    def keep(self, identity: str, files: Mapping[str, bytes], record: Record) -> None:
        """Write an image's files, and then its record, which says that they are whole.

        Raises:
            OutputError: They cannot be written.
        """
        folder = self.image(identity)
        try:
            private_directory(folder)
            for name, content in files.items():
                write_atomic(folder / name, content)
            write_atomic(folder / RECORD, _json({"format": FORMAT, **record}))
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None

    def records(self) -> list[Record]:
        """Return the records of all images, by study, side and view."""
        folders = sorted((self.path / IMAGES).glob("*"))
        found = [record for folder in folders if (record := self.find(folder.name))]
        return sorted(found, key=lambda r: (r["study"], r["laterality"] or "", r["view"] or ""))


def check_folder(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder of something else, before the work.

    Args:
        path: The folder, which need not exist.
        identity: What tells its predictions from another model's.

    Raises:
        OutputError: It holds another model's predictions, or anything else.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path}: is no folder; name one for the predictions")
    if not (path / MODEL).exists():
        if any(entry.name != LOCK for entry in path.iterdir()):
            raise OutputError(f"{path}: not empty, and no folder of predictions; name a new one")
        return
    try:
        found = json.loads((path / MODEL).read_bytes())
        different = [key for key, value in identity.items() if found.get(key) != value]
    except (OSError, ValueError, AttributeError):
        raise OutputError(f"{path / MODEL}: damaged; name a new folder") from None
    if different:
        key = different[0]
        raise OutputError(
            f"{path}: holds other predictions: their {key.replace('_', ' ')} is {found.get(key)}, "
            f"here it is {identity[key]}; name a new folder"
        )


@contextmanager
def open_folder(path: Path, identity: Mapping[str, Any]) -> Iterator[PredictionFolder]:
    """Open a folder for one process, and say in it whose predictions it holds.

    Raises:
        DataError: Another process works in it.
        OutputError: It holds something else, or cannot be written.
    """
    check_folder(path, identity)
    with alone(path):
        try:
            write_atomic(path / MODEL, _json(identity))
            private_directory(path / IMAGES)
            private_directory(path / STUDIES)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
        yield PredictionFolder(path)


def identity_of(model: Mapping[str, Any], encoding: str) -> dict[str, Any]:
    """Name all that predictions of one image depend on."""
    return {
        "format": FORMAT,
        "prepare_version": PREPARE_VERSION,
        **model,
        "segmentation": encoding,
    }


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
