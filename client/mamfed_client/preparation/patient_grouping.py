"""A folder's patients, joined by what rows and files say of them (``patients`` has the rules)."""

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
    manifest: Manifest, rows: Sequence[Row], outcomes: Mapping[int, RowResult], secret: bytes
) -> JoinedPatients:
    """Find patients who may be one by how they are spelled, or by what their files say.

    Args:
        manifest: What the folder offers.
        rows: Its rows that can be read, completed by what their files say.
        outcomes: What became of each row.
        secret: The site's, for pseudonyms.
    """
    mentions = _mentions(manifest, rows, outcomes, secret)
    placeholders = {patient_key(secret, word) for word in PLACEHOLDERS}
    spelled = spelled_alike(mentions)
    by_files = named_alike(mentions, placeholders.__contains__)
    in_table = {mention.row_number for mention in mentions if mention.in_table}
    named = [(row.patient_id, row.image) for row in rows if row.row_number in in_table]
    notes = (*spelled.notes, *by_files.notes, *named_after_files(named))
    return JoinedPatients([*spelled.pairs, *by_files.pairs], notes)


def check_split(manifest: Manifest, secret: bytes) -> None:
    """Refuse a split column that divides a patient, before any image is read.

    Raises:
        DataError: It does, or holds something unknown.
    """
    one = linked_patients(spelled_alike(_mentions(manifest, (), {}, secret)).pairs)
    statements = manifest.statements
    declared_parts([replace(s, patient_id=one.get(s.patient_id, s.patient_id)) for s in statements])


def _mentions(
    manifest: Manifest, rows: Sequence[Row], outcomes: Mapping[int, RowResult], secret: bytes
) -> list[PatientMention]:
    """Say of every row, usable or not, whom it and its file name."""
    said = {
        s.row_number: PatientMention(
            s.row_number, s.patient_id, patient_key(secret, s.patient_id), "", s.patient_checked
        )
        for s in manifest.statements
    }
    for row in rows:
        number, outcome = row.row_number, outcomes[row.row_number]
        by_file = PatientMention(number, row.patient_id, outcome.alike, in_table=False)
        said[number] = said.get(number, by_file)._replace(by_file=outcome.alike)
    return [mention for _, mention in sorted(said.items())]
