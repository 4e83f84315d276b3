"""The folder of a pull: images named by pseudonyms, and a journal of what came.

======================  ====================================================================
``images/STUDY/ID.dcm`` an image as the archive gave it; its header identifies the patient
``labels.csv``          the worklist's labels, if it had some; patients by pseudonym
``.pull/pull.json``     what the names depend on
``.pull/journal.jsonl`` a line for each object: image or other modality
======================  ====================================================================

Names start with a dot where the intake is not to look. An image is complete before it gets its
name, so a crash leaves it whole or absent.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from mamfed_client.preparation.prepared_folder import alone
from mamfed_client.preparation.pseudonyms import pseudonym
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import (
    DOCUMENT_BYTES,
    STATE_BYTES,
    TABLE_BYTES,
    parse_json,
    read_bytes,
    read_values,
)
from mamfed_common.runtime.files import (
    cannot_write,
    give_to_owner,
    private_directory,
    write_atomic,
)
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.lock import LOCK
from mamfed_common.runtime.output_checks import check_folder
from mamfed_common.runtime.seal import sealed, unsealed

STATE, IMAGES, TABLE = ".pull", "images", "labels.csv"
MADE_BY, FORMAT = "mamfed-client pacs pull", 1
Entry = dict[str, Any]


class PullFolder:
    """A folder into which images are pulled."""

    def __init__(self, path: Path, secret: bytes) -> None:
        """Read the journal, skipping a line that a crash cut short.

        Raises:
            OutputError: It cannot be read.
        """
        self.path, self._secret = path, secret
        self._journal = path / STATE / "journal.jsonl"
        self.entries: dict[str, Entry] = {}
        try:
            lines = read_bytes(self._journal, STATE_BYTES).splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise cannot_write(self._journal, error) from None
        for line in lines:
            if (entry := _parsed(line)) is not None:
                self.entries[entry["object"]] = entry

    def key(self, uid: str) -> str:
        """Return an object's pseudonym."""
        return pseudonym(self._secret, "object", uid)

    def patient(self, patient_id: str, study: str) -> str:
        """Return a patient's pseudonym; a study without Patient ID is a patient of its own."""
        kind = ("patient", patient_id) if patient_id else ("alone", study)
        return pseudonym(self._secret, *kind)

    def file(self, study: str, uid: str) -> Path:
        """Return where an image goes."""
        name = f"{self.key(uid)}.dcm"
        return self.path / IMAGES / pseudonym(self._secret, "study", study)[:16] / name

    @property
    def incoming(self) -> Path:
        """Return where an object waits until its header has been read."""
        return self.path / STATE / "incoming.dcm"

    def receive(self, data: bytes) -> Path:
        """Write an object to ``incoming``."""
        try:
            write_atomic(self.incoming, data)
        except OSError as error:
            raise cannot_write(self.incoming, error) from None
        return self.incoming

    def accept(self, target: Path) -> None:
        """Give the object in ``incoming`` its name."""
        try:
            private_directory(target.parent)
            os.replace(self.incoming, target)
        except OSError as error:
            raise cannot_write(target, error) from None

    def discard(self) -> None:
        """Remove the object in ``incoming``."""
        self.incoming.unlink(missing_ok=True)

    def note(self, uid: str, **facts: Any) -> None:
        """Append an object's entry to the journal.

        Raises:
            OutputError: It cannot be written.
        """
        entry = {"object": self.key(uid), **facts}
        try:
            descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                give_to_owner(descriptor, self._journal.parent)
                file.write(sealed(json.dumps(entry)).encode() + b"\n")
        except OSError as error:
            raise cannot_write(self._journal, error) from None
        self.entries[entry["object"]] = entry

    def write_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
        """Write ``labels.csv``; if somebody has changed it, ``labels.new.csv`` beside it.

        Raises:
            OutputError: It cannot be written.
        """
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        content = text.getvalue().encode()
        table, mark = self.path / TABLE, self.path / STATE / "labels.sha256"
        try:
            if table.exists() and not _is_ours(table, mark):
                table = self.path / "labels.new.csv"
            write_atomic(table, content)
            if table.name == TABLE:
                write_atomic(mark, hashlib.sha256(content).hexdigest())
        except OSError as error:
            raise cannot_write(table, error) from None
        return table


def _is_ours(table: Path, mark: Path) -> bool:
    """Return whether a table is as it was written."""
    try:
        said = read_bytes(mark, DOCUMENT_BYTES).decode()
        return said == hashlib.sha256(read_bytes(table, TABLE_BYTES)).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def check_pull_folder(path: Path, secret: bytes) -> None:
    """Refuse a folder with other content, before any work is done.

    Raises:
        OutputError: It holds other files, or a pull under another secret.
    """
    check_folder(path, _is_begun, "pulled images")
    mark = path / STATE / "pull.json"
    if mark.exists():
        try:
            known = read_values(mark, DOCUMENT_BYTES)
        except (OSError, ValueError):
            raise OutputError(f"{mark}: damaged; name a new folder") from None
        _question(secret).check(known, f"{path}: holds another pull", "name a new folder")


@contextmanager
def open_pull_folder(path: Path, secret: bytes) -> Iterator[PullFolder]:
    """Open a folder for one process.

    Raises:
        SetupError: Another process works in it.
        OutputError: It holds other files, or cannot be written.
    """
    check_pull_folder(path, secret)
    with alone(path):
        try:
            private_directory(path / STATE)
            private_directory(path / IMAGES)
            _question(secret).write(path / STATE / "pull.json")
        except OSError as error:
            raise cannot_write(path, error) from None
        yield PullFolder(path, secret)


def _question(secret: bytes) -> Fingerprint:
    return Fingerprint.of(made_by=MADE_BY, format=FORMAT, site=pseudonym(secret, "secret"))


def _is_begun(path: Path) -> bool:
    return (path / STATE).is_dir() or all(entry.name == LOCK for entry in path.iterdir())


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = parse_json(unsealed(line.decode()))
    except ValueError:  # UnicodeDecodeError too
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("object"), str) else None
