"""Summarise a folder as counts that identify no patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from mamfed_client.imaging.rejections import Rejection
from mamfed_client.preparation.cohort import tally
from mamfed_client.preparation.ingest import AcceptedImage, Intake
from mamfed_common.domain import Purpose

STAGES: dict[str, Purpose] = {
    "stage1": "benign",
    "stage2": "malignant",
    "false_alarms": "without_malignancy",
}
"""The purpose that each stage, and the evaluation's count of false alarms, draws images from."""


def summarise_intake(intake: Intake) -> dict[str, Any]:
    """Count a folder's images by every property that may affect training."""
    cases = intake.accepted
    return {
        "layout": intake.layout,
        "files": intake.files,
        "accepted": len(cases),
        "rejected": tally(r.reason for r in intake.rejected),
        "other_files": tally(intake.other_files.elements()),
        "left_out": tally(intake.excluded.elements()),
        "patients": _patients(cases),
        "patients_sharing_a_picture": intake.linked_patients,
        "vendors": tally(c.row.vendor or "unknown" for c in cases),
        "views": tally(_word(c.row.view) for c in cases),
        "lateralities": tally(c.row.laterality or "unknown" for c in cases),
        "laterality_from": tally(c.result.laterality_source or "nowhere" for c in cases),
        "view_from": tally(c.result.view_source or "nowhere" for c in cases),
        "densities": tally(_word(c.row.density) for c in cases),
        "labels": tally(_label(c) for c in cases),
        "without_spacing": sum(c.row.spacing_mm is None for c in cases),
        "masks_resampled": sum(c.result.resampled for c in cases),
        "masks_drawn_as": tally(c.result.drawn_as for c in cases if c.result.drawn_as),
        "regions_of_other_classes": sum(c.result.others for c in cases),
        "doubtful_images": sum(bool(c.doubts) for c in cases),
        "doubts": tally(kind for c in cases for kind in {d.doubt for d in c.doubts}),
        "notes": list(intake.notes),
        **{stage: _served(cases, purpose) for stage, purpose in STAGES.items()},
    }


def list_items(intake: Intake) -> list[dict[str, Any]]:
    """List every file with its status. The list must not leave the site."""
    items = [(case.row.row_number, _accepted_item(case)) for case in intake.accepted]
    items += [(r.row_number, _rejected_item(r)) for r in intake.rejected]
    return [{"row": number, **item} for number, item in sorted(items, key=itemgetter(0))]


def _accepted_item(case: AcceptedImage) -> dict[str, Any]:
    return {
        "file": case.row.image,
        "status": "accepted",
        "reason": None,
        "detail": "",
        "laterality": case.row.laterality,
        "view": case.row.view,
        "vendor": case.row.vendor,
        "spacing_mm": case.row.spacing_mm,
        "serves": sorted(case.purposes),
        "doubts": [str(doubt) for doubt in case.doubts],
    }


def _rejected_item(rejected: Rejection) -> dict[str, Any]:
    return {
        "file": rejected.image,
        "status": "rejected",
        "reason": str(rejected.reason),
        "detail": rejected.detail,
        "laterality": None,
        "view": None,
        "vendor": None,
        "spacing_mm": None,
        "serves": [],
        "doubts": [],
    }


def _word(value: str | None) -> str:
    """Return a short word as it is, anything else as "other": a shifted cell may name a patient."""
    if not value:
        return "unknown"
    return value if re.fullmatch(r"[A-Za-z0-9-]{1,20}", value) else "other"


def _label(case: AcceptedImage) -> str:
    label = case.row.label
    if label.pathology is not None:
        return label.pathology
    return f"BI-RADS {max(label.birads)}" if label.birads else "unknown"


def _served(cases: Sequence[AcceptedImage], purpose: Purpose) -> dict[str, int]:
    served = [case for case in cases if purpose in case.purposes]
    return {"images": len(served), "patients": _patients(served)}


def _patients(cases: Sequence[AcceptedImage]) -> int:
    return len({case.row.patient_id for case in cases})
