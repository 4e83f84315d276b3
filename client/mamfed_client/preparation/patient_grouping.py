"""Apply the rules of ``patients`` to a folder: find rows that belong to the same patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mamfed_client.datasets.manifest import Manifest, Row, linked_patients
from mamfed_client.preparation.patient_split import declared_parts
from mamfed_client.preparation.patients import (
    PLACEHOLDERS,
    JoinedPatients,
    PatientMention,
    named_after_files,
    named_alike,
    patient_key,
    spelled_alike,
)
from mamfed_client.preparation.row_result import RowResult


def join_patients(
    manifest: Manifest, rows: Sequence[Row], results: Mapping[int, RowResult], secret: bytes
) -> JoinedPatients:
    """Find patients who may be the same, by their spelling or by their files' Patient ID.

    Args:
        manifest: The images that the folder lists.
        rows: The readable rows, completed with values from their files.
        results: The result of each row, by row number.
        secret: The site's secret, for pseudonyms.
    """
    mentions = _mentions(manifest, rows, results, secret)
    placeholders = {patient_key(secret, word) for word in PLACEHOLDERS}
    spelled = spelled_alike(mentions)
    by_files = named_alike(mentions, placeholders.__contains__)
    in_table = {mention.row_number for mention in mentions if mention.in_table}
    named = [(row.patient_id, row.image) for row in rows if row.row_number in in_table]
    notes = (*spelled.notes, *by_files.notes, *named_after_files(named))
    return JoinedPatients([*spelled.pairs, *by_files.pairs], notes)


def check_split(manifest: Manifest, secret: bytes) -> None:
    """Check the split column before any image is read.

    Raises:
        DataError: The column divides a patient, or holds an unknown value.
    """
    same = linked_patients(spelled_alike(_mentions(manifest, (), {}, secret)).pairs)
    declared_parts(
        [replace(s, patient_id=same.get(s.patient_id, s.patient_id)) for s in manifest.statements]
    )


def _mentions(
    manifest: Manifest, rows: Sequence[Row], results: Mapping[int, RowResult], secret: bytes
) -> list[PatientMention]:
    """Return how every row, usable or not, and its file identify the patient."""
    mentions = {
        s.row_number: PatientMention(
            s.row_number, s.patient_id, patient_key(secret, s.patient_id), "", s.patient_checked
        )
        for s in manifest.statements
    }
    for row in rows:
        number, result = row.row_number, results[row.row_number]
        by_file = PatientMention(number, row.patient_id, result.alike, in_table=False)
        mentions[number] = mentions.get(number, by_file)._replace(by_file=result.alike)
    return [mention for _, mention in sorted(mentions.items())]
