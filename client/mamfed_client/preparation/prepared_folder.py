"""A prepared folder: samples and what training needs to know of them, without the original files.

``manifest.json`` holds pseudonyms only; without the site's secret nobody finds a patient in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets.manifest import PatientStatement, Row
from mamfed_client.datasets.other_files import OtherFile
from mamfed_client.imaging.doubts import from_json, to_json
from mamfed_client.imaging.preprocess import PREPARE_VERSION
from mamfed_client.imaging.rejections import Reason, Rejection
from mamfed_client.preparation.eligibility import ExclusionReason
from mamfed_client.preparation.ingest import AcceptedImage, Intake
from mamfed_client.preparation.prepare_row import READING_VERSION
from mamfed_client.preparation.pseudonyms import pseudonym, read_key
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.preparation.sample_store import SampleStore
from mamfed_client.tables.field_parsers import Label, Pathology
from mamfed_common.domain import PARTS, Part
from mamfed_common.errors import DataError
from mamfed_common.runtime.files import cannot_write, private_directory, remove_drafts, write_atomic
from mamfed_common.runtime.lock import LOCK, exclusive_lock

MANIFEST = "manifest.json"
SAMPLES = "samples"
JOURNAL = "journal.jsonl"
SPLITS = "splits.json"
FORMAT = 1

Parts = dict[str, Part]


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder is one that ``mamfed-client data prepare`` has made."""
    return (folder / MANIFEST).is_file()


class PreparedKind(NamedTuple):
    """What a prepared folder was made of, and how.

    Attributes:
        source: Pseudonym of the folder that its images came from.
        size: Side of its samples in pixels.
        encrypted: Whether they are encrypted.
        key: Pseudonym of the key, empty without.
        secret: Pseudonym of the site's secret, which all other pseudonyms come from.
    """

    source: str
    size: int
    encrypted: bool
    key: str
    secret: str


def save_intake(folder: Path, intake: Intake, kind: PreparedKind, secret: bytes) -> None:
    """Write the manifest of a prepared folder.

    Raises:
        OutputError: The folder cannot be written.
    """

    def patient(name: str) -> str:
        return pseudonym(secret, "patient", name)

    content = {
        "format": FORMAT,
        "prepare_version": PREPARE_VERSION,
        "reading_version": READING_VERSION,
        **kind._asdict(),
        "layout": intake.layout,
        "linked": intake.linked,
        "beside": {str(kind): count for kind, count in sorted(intake.beside.items())},
        "notes": list(intake.notes),
        "left_out": {str(reason): count for reason, count in sorted(intake.left_out.items())},
        "rejected": [[r.row_number, r.reason] for r in intake.rejected],
        "statements": [
            [s.row_number, patient(s.patient_id), _label_json(s.label), s.split]
            for s in intake.statements
        ],
        "cases": [_case_json(case, patient(case.row.patient_id)) for case in intake.cases],
    }
    try:
        write_atomic(private_directory(folder) / MANIFEST, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(folder, error) from None


def prepared_as(folder: Path) -> PreparedKind:
    """Return what a prepared folder was made of.

    Raises:
        DataError: The manifest is damaged.
    """
    content = _content(folder)
    return PreparedKind(*(content[name] for name in PreparedKind._fields))


def prepared_images(folder: Path) -> int:
    """Count the images of a prepared folder.

    Raises:
        DataError: The manifest is damaged.
    """
    return len(_content(folder).get("cases", ()))


def load_intake(folder: Path) -> tuple[Intake, int, bool]:
    """Read a prepared folder: what it holds, the size of its samples, whether it is encrypted.

    Raises:
        DataError: It was not made by this version of mamfed, or is damaged.
    """
    content = _content(folder)
    versions = (content["format"], content["prepare_version"], content.get("reading_version"))
    if versions != (FORMAT, PREPARE_VERSION, READING_VERSION):
        raise DataError(f"{folder}: made by another version of mamfed; prepare the folder again")
    try:
        return _intake(content), content["size"], content["encrypted"]
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise _damaged(folder) from None


def open_store(folder: Path, key_path: Path | None, *, encrypted: bool) -> SampleStore:
    """Open the samples of a prepared folder.

    Raises:
        DataError: They are encrypted and no key is named, or the file is no key.
    """
    if not encrypted:
        return SampleStore(folder / SAMPLES)
    if key_path is None:
        raise DataError(f"{folder}: its samples are encrypted; name the key file with --key")
    return SampleStore(folder / SAMPLES, read_key(key_path, "key", make=False))


def remembered_parts(
    folder: Path, what: str, patients: frozenset[str], draw: Callable[[frozenset[str]], Parts]
) -> Parts:
    """Return the split of a prepared folder; patients who came later are added to it.

    Args:
        folder: The prepared folder, which keeps its splits in ``splits.json``.
        what: Everything that the split is drawn from.
        patients: Whom it has to place.
        draw: Draws a split of the patients whom it is given.

    Raises:
        DataError: The file is damaged.
        OutputError: The file cannot be written.
    """
    path = folder / SPLITS
    try:
        splits = json.loads(path.read_bytes()) if path.exists() else {}
        parts: Parts = {p: part for p, part in splits.get(what, {}).items() if part in PARTS}
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{path}: damaged; remove it to draw a new split") from None
    fresh = patients - parts.keys()
    if fresh:
        parts |= draw(fresh)
        splits[what] = parts
        try:
            write_atomic(path, json.dumps(splits, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from None
    return parts


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder; a kill leaves no lock behind.

    Raises:
        SetupError: Another process works in it, or its file system has no locks.
        OutputError: The folder cannot be written.
    """
    try:
        private_directory(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    with exclusive_lock(folder / LOCK, "another command"):
        remove_drafts(folder)
        yield


def _content(folder: Path) -> dict[str, Any]:
    if not is_prepared(folder):
        raise DataError(f"{folder}: not a prepared folder; mamfed-client data prepare makes one")
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if not {"format", "prepare_version", *PreparedKind._fields} <= content.keys():
            raise _damaged(folder)
    except (OSError, ValueError, AttributeError):
        raise _damaged(folder) from None
    return content


def _damaged(folder: Path) -> DataError:
    return DataError(f"{folder / MANIFEST}: damaged; remove it and prepare the folder again")


def _case_json(case: AcceptedImage, patient: str) -> dict[str, Any]:
    return {
        "row": case.row.row_number,
        "patient": patient,
        "label": _label_json(case.row.label),
        "density": case.row.density,
        "kind": case.row.kind,
        "split": case.row.split,
        "annotated": bool(case.row.annotations),
        "purposes": sorted(case.purposes),
        "doubts": to_json(case.doubts),
        "outcome": {**case.outcome.to_json(), "patient": "", "alike": ""},
    }


def _intake(content: dict[str, Any]) -> Intake:
    return Intake(
        layout=content["layout"],
        cases=tuple(_case(case) for case in content["cases"]),
        rejected=tuple(
            Rejection(number, _name(number), Reason(reason), "")
            for number, reason in content["rejected"]
        ),
        left_out=Counter({ExclusionReason(reason): n for reason, n in content["left_out"].items()}),
        statements=tuple(
            PatientStatement(number, patient, _label(label), split)
            for number, patient, label, split in content["statements"]
        ),
        linked=content["linked"],
        beside=Counter({OtherFile(kind): n for kind, n in content.get("beside", {}).items()}),
        notes=tuple(content.get("notes", ())),
    )


def _case(content: dict[str, Any]) -> AcceptedImage:
    outcome = RowResult.from_json(content["outcome"])
    label = _label(content["label"])
    assert label is not None
    row = Row(
        row_number=content["row"],
        image=_name(content["row"]),
        image_path=Path(),
        annotations=(Annotation(),) if content["annotated"] else (),
        patient_id=content["patient"],
        label=label,
        laterality=outcome.laterality,
        view=outcome.view,
        spacing_mm=outcome.spacing_mm,
        vendor=outcome.vendor,
        density=content["density"],
        kind=content.get("kind"),
        split=content["split"],
    )
    doubts = from_json(content.get("doubts", ()))  # an older version had none
    return AcceptedImage(row, frozenset(content["purposes"]), outcome, doubts)


def _name(row_number: int) -> str:
    return f"row {row_number}"


def _label_json(label: Label | None) -> list[Any] | None:
    return None if label is None else [label.pathology, list(label.birads)]


def _label(content: list[Any] | None) -> Label | None:
    if content is None:
        return None
    pathology, birads = content
    return Label(None if pathology is None else Pathology(pathology), tuple(birads))
