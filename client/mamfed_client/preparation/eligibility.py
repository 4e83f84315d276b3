"""Decide which purposes an image serves, by the rules of the paper, patient by patient.

Stage 1 learns what is normal. It takes only patients without any suspicious finding in either
breast: every assessment is BI-RADS 1 or 2, and no row is malignant. Stage 2 takes malignant images
whose lesions are outlined. BI-RADS 0 asks for more images, so it counts as no assessment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from mamfed_client.datasets.manifest import PatientStatement, Row
from mamfed_client.tables.field_parsers import Label, Pathology
from mamfed_common.domain import Purpose


class ExclusionReason(StrEnum):
    """Why a readable row is excluded from stage 1 or stage 2."""

    SUSPICIOUS_PATIENT = "patient has BI-RADS 3-6 or malignant row"
    UNCLEAR_PATIENT = "patient has a row with an unreadable label"
    NO_MASK = "malignant without mask"
    BOX_ONLY = "malignant with boxes only"
    PROBABLY_BENIGN = "BI-RADS 3 without pathology"
    NO_LABEL = "no pathology and no BI-RADS category"

    @property
    def bars_from_all(self) -> bool:
        """Whether such a row serves no purpose; otherwise false alarms are counted on it."""
        return self not in (ExclusionReason.SUSPICIOUS_PATIENT, ExclusionReason.UNCLEAR_PATIENT)


def assign_purposes(
    rows: Iterable[Row], statements: Iterable[PatientStatement]
) -> tuple[dict[int, frozenset[Purpose]], Counter[ExclusionReason]]:
    """Decide which purposes each row serves.

    Args:
        rows: The usable rows.
        statements: What all rows, including unusable ones, state about their patients.

    Returns:
        The purposes of each row, by row number, possibly none; and the number of rows excluded
        from a stage, by reason. An excluded row may still serve ``without_malignancy``.
    """
    barred = _barred_patients(statements)
    purposes: dict[int, frozenset[Purpose]] = {}
    left_out: Counter[ExclusionReason] = Counter()
    for row in rows:
        served, reason = _judge(row, barred)
        purposes[row.row_number] = served
        if reason is not None:
            left_out[reason] += 1
    return purposes, left_out


def is_malignant(label: Label) -> bool:
    """Tell whether a label means malignant: by its pathology, or else by BI-RADS 4 or higher."""
    if label.pathology is not None:
        return label.pathology is Pathology.MALIGNANT
    return max(label.birads, default=0) >= 4


def is_without_malignancy(label: Label) -> bool:
    """Tell whether a label rules malignancy out: by its pathology, or else by BI-RADS 1 or 2."""
    if label.pathology is not None:
        return label.pathology is not Pathology.MALIGNANT
    return 1 <= max(label.birads, default=0) <= 2


def _barred_patients(statements: Iterable[PatientStatement]) -> dict[str, ExclusionReason]:
    """Find the patients excluded from stage 1. A suspicion takes precedence over an unclear row."""
    barred: dict[str, ExclusionReason] = {}
    for statement in statements:
        if statement.label is None:
            barred.setdefault(statement.patient_id, ExclusionReason.UNCLEAR_PATIENT)
        elif is_malignant(statement.label) or max(statement.label.birads, default=0) >= 3:
            barred[statement.patient_id] = ExclusionReason.SUSPICIOUS_PATIENT
    return barred


def _judge(
    row: Row, barred: dict[str, ExclusionReason]
) -> tuple[frozenset[Purpose], ExclusionReason | None]:
    if is_malignant(row.label):
        missing = _missing_outline(row)
        if missing is not None:
            return frozenset(), missing
        return frozenset({"malignant"}), None
    if is_without_malignancy(row.label):
        if row.patient_id in barred:
            return frozenset({"without_malignancy"}), barred[row.patient_id]
        return frozenset({"benign", "without_malignancy"}), None
    return frozenset(), ExclusionReason.PROBABLY_BENIGN if any(
        row.label.birads
    ) else ExclusionReason.NO_LABEL


def _missing_outline(row: Row) -> ExclusionReason | None:
    """Return why a malignant row has no outline, or None. Annotation files are not opened here."""
    shapes = [shape for annotation in row.annotations for shape in annotation.shapes]
    if any(a.path for a in row.annotations) or any(shape.kind != "box" for shape in shapes):
        return None
    return ExclusionReason.BOX_ONLY if shapes else ExclusionReason.NO_MASK
