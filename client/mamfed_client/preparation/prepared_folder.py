"""Read and write a prepared folder: samples with the data that training needs about them.

``manifest.json`` holds pseudonyms only; without the site's secret they cannot be traced to a
patient.
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
from mamfed_client.preparation.prepare_row import READING_VERSION, completed
from mamfed_client.preparation.pseudonyms import pseudonym, read_key
from mamfed_client.preparation.row_result import RowResult
from mamfed_client.preparation.sample_store import SampleStore
from mamfed_client.tables.field_parsers import Label, Pathology
from mamfed_common.domain import PARTS, Part
from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import STATE_BYTES, parse_json, read_bytes
from mamfed_common.runtime.files import cannot_write, private_directory, remove_drafts, write_atomic
from mamfed_common.runtime.lock import LOCK, exclusive_lock
from mamfed_common.runtime.seal import sealed, unsealed

MANIFEST = "manifest.json"
SAMPLES = "samples"
JOURNAL = "journal.jsonl"
SPLITS = "splits.json"
FORMAT = 1
KEYS = frozenset(
    "format prepare_version reading_version source size encrypted key secret layout linked beside "
    "notes left_out rejected statements cases".split()
)
"""Keys of a manifest."""

Parts = dict[str, Part]


def is_prepared(folder: Path) -> bool:
    """Tell whether ``mamfed-client data prepare`` has written this folder."""
    return (folder / MANIFEST).is_file()


class PreparedKind(NamedTuple):
    """The source and settings of a prepared folder.

    Attributes:
        source: Pseudonym of the original folder.
        size: Side of the samples in pixels.
        encrypted: Whether the samples are encrypted.
        key: Pseudonym of the encryption key; empty if not encrypted.
        secret: Pseudonym of the site's secret, from which all other pseudonyms derive.
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
        "linked": intake.linked_patients,
        "beside": {str(kind): count for kind, count in sorted(intake.other_files.items())},
        "notes": list(intake.notes),
        "left_out": {str(reason): count for reason, count in sorted(intake.excluded.items())},
        "rejected": [[r.row_number, r.reason] for r in intake.rejected],
        "statements": [
            [s.row_number, patient(s.patient_id), _label_json(s.label), s.split]
            for s in intake.statements
        ],
        "cases": [_case_json(case, patient(case.row.patient_id)) for case in intake.accepted],
    }
    try:
        text = sealed(json.dumps(content, indent=1)) + "\n"
        write_atomic(private_directory(folder) / MANIFEST, text)
    except OSError as error:
        raise cannot_write(folder, error) from None


def prepared_as(folder: Path) -> PreparedKind:
    """Return the source and settings of a prepared folder.

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
    """Return the intake of a prepared folder, its sample size, and whether it is encrypted.

    Raises:
        DataError: Another version of mamfed wrote the folder, or its manifest is damaged.
    """
    content = _content(folder)
    versions = (content["format"], content["prepare_version"], content.get("reading_version"))
    if versions != (FORMAT, PREPARE_VERSION, READING_VERSION):
        raise DataError(f"{folder}: written by another version of mamfed; prepare the folder again")
    try:
        return _intake(content), content["size"], content["encrypted"]
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise _damaged(folder) from None


def open_store(folder: Path, key_path: Path | None, *, encrypted: bool) -> SampleStore:
    """Open the samples of a prepared folder.

    Raises:
        DataError: The samples are encrypted and no key, or no valid key, is given.
    """
    if not encrypted:
        return SampleStore(folder / SAMPLES)
    if key_path is None:
        raise DataError(f"{folder}: the samples are encrypted; name the key file with --key")
    return SampleStore(folder / SAMPLES, read_key(key_path, "key", make=False))


def remembered_parts(
    folder: Path, split_key: str, patients: frozenset[str], draw: Callable[[frozenset[str]], Parts]
) -> Parts:
    """Return the stored split of a prepared folder, extended by patients who are new.

    Args:
        folder: The prepared folder, which stores its splits in ``splits.json``.
        split_key: All settings that determine the split, as the key it is stored under.
        patients: The patients to assign.
        draw: Draws a split for a set of patients.

    Raises:
        DataError: The file is damaged.
        OutputError: The file cannot be written.
    """
    path = folder / SPLITS
    try:
        splits = _sealed_values(path) if path.exists() else {}
        if not all(isinstance(parts, dict) for parts in splits.values()):  # a damaged seal
            raise ValueError
        parts: Parts = {p: part for p, part in splits.get(split_key, {}).items() if part in PARTS}
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{path}: damaged; remove it to draw a new split") from None
    new_patients = patients - parts.keys()
    if new_patients:
        parts |= draw(new_patients)
        splits[split_key] = parts
        try:
            write_atomic(path, sealed(json.dumps(splits, indent=1, sort_keys=True)) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from None
    return parts


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder against a second process; a crash leaves no lock behind.

    Raises:
        SetupError: Another process is using the folder, or its file system has no locks.
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
        raise DataError(
            f"{folder}: not a prepared folder; create one with mamfed-client data prepare"
        )
    try:
        content: dict[str, Any] = _sealed_values(folder / MANIFEST)
        if (
            content.keys() - KEYS
            or not {"format", "prepare_version", *PreparedKind._fields} <= content.keys()
        ):
            raise _damaged(folder)
    except (OSError, ValueError, AttributeError):
        raise _damaged(folder) from None
    return content


def _sealed_values(path: Path) -> Any:
    return parse_json(unsealed(read_bytes(path, STATE_BYTES).decode()))


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
        "outcome": {**case.result.to_json(), "patient": "", "alike": ""},
    }


def _intake(content: dict[str, Any]) -> Intake:
    return Intake(
        layout=content["layout"],
        accepted=tuple(_case(case) for case in content["cases"]),
        rejected=tuple(
            Rejection(number, _name(number), Reason(reason), "")
            for number, reason in content["rejected"]
        ),
        excluded=Counter({ExclusionReason(reason): n for reason, n in content["left_out"].items()}),
        statements=tuple(
            PatientStatement(number, patient, _label(label), split)
            for number, patient, label, split in content["statements"]
        ),
        linked_patients=content["linked"],
        other_files=Counter({OtherFile(kind): n for kind, n in content.get("beside", {}).items()}),
        notes=tuple(content.get("notes", ())),
    )


def _case(content: dict[str, Any]) -> AcceptedImage:
    result = RowResult.from_json(content["outcome"])
    label = _label(content["label"])
    assert label is not None
    row = Row(
        row_number=content["row"],
        image=_name(content["row"]),
        image_path=Path(),
        annotations=(Annotation(),) if content["annotated"] else (),
        patient_id=content["patient"],
        label=label,
        density=content["density"],
        kind=content.get("kind"),
        split=content["split"],
    )
    doubts = from_json(content.get("doubts", ()))  # older versions stored none
    return AcceptedImage(completed(row, result), frozenset(content["purposes"]), result, doubts)


def _name(row_number: int) -> str:
    return f"row {row_number}"


def _label_json(label: Label | None) -> list[Any] | None:
    return None if label is None else [label.pathology, list(label.birads)]


def _label(content: list[Any] | None) -> Label | None:
    if content is None:
        return None
    pathology, birads = content
    return Label(None if pathology is None else Pathology(pathology), tuple(birads))
