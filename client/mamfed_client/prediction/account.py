"""What a call of ``predict`` says: what became of its images, and what the folder holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mamfed_client.imaging.rejections import Rejection
from mamfed_client.prediction.folder import PredictionFolder, Record
from mamfed_client.prediction.model import NOTICE, LoadedModel
from mamfed_client.prediction.sources import FoundSources, Source
from mamfed_client.preparation.cohort import tally

WHOSE = {
    "id": "Patient IDs",
    "issuer": "issuers of the Patient ID",
    "birth_date": "birth dates",
    "sex": "sexes",
}
"""What all images of one study have to say alike."""


@dataclass(slots=True)
class PredictionCounts:
    """What became of this call's images; threads add to it.

    Attributes:
        predicted: Images predicted now.
        done_before: Images that the folder had already, of the same question.
        duplicates: Images whose file is the same as another one's of this call.
        contradicted: Those of them of which a table or a name says other things.
        own: Files of earlier predictions that lay among the inputs.
        rejected: Images that cannot be used.
        kept: Records of images done before, and each one's source now.
        outdated: Records of images of which other things are said now.
        replaced: Records of files that hold other images now, or that are rejected now.
    """

    predicted: int = 0
    done_before: int = 0
    duplicates: int = 0
    contradicted: int = 0
    own: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    kept: list[tuple[Record, Source]] = field(default_factory=list)
    outdated: list[Record] = field(default_factory=list)
    replaced: list[Record] = field(default_factory=list)


def forecast(
    model: LoadedModel, offered: FoundSources, to_predict: int, outcomes: PredictionCounts
) -> dict[str, Any]:
    """Say what there is to do."""
    return {
        "dry_run": True,
        "model": model.to_json(),
        "device": str(model.device),
        "offered": len(offered.sources) + len(offered.rejected),
        "to_predict": to_predict,
        **_aside(outcomes),
    }


def document_of(
    model: LoadedModel, folder: PredictionFolder, outcomes: PredictionCounts
) -> dict[str, Any]:
    """Describe all that the folder holds, and what this call left out."""
    records = folder.records()
    missing = tally(r["segmentation_missing"] for r in records if not r["segmentation"])
    of_call = outcomes.predicted + outcomes.done_before
    return {
        "notice": NOTICE,
        "model": model.to_json(),
        "predicted": outcomes.predicted,
        **_aside(outcomes),
        "of_earlier_calls": len(records) - of_call,
        "images": len(records),
        "studies": len({r["study"] for r in records}),
        "with_lesions": sum(bool(r["lesions"]) for r in records),
        "without_lesions": sum(not r["lesions"] for r in records),
        "segmentations": sum(bool(r["segmentation"]) for r in records),
        "without_segmentation": missing,
        "header_left_out": tally(
            f"{keyword}: {why}" for r in records for keyword, why in r["header_left_out"].items()
        ),
        "side_unknown": sum(r["laterality"] is None for r in records),
        "contradictions": contradictions(records),
        "per_image": records,
        "per_rejected": [
            {"source": r.image, "reason": str(r.reason), "detail": r.detail}
            for r in outcomes.rejected
        ],
    }


def _aside(outcomes: PredictionCounts) -> dict[str, Any]:
    """Count what was not predicted now, and what was thrown away for it."""
    return {
        "done_before": outcomes.done_before,
        "outdated": len(outcomes.outdated),
        "replaced": len(outcomes.replaced),
        "duplicates": outcomes.duplicates,
        "contradicted": outcomes.contradicted,
        "own_files": outcomes.own,
        "rejected": tally(str(r.reason) for r in outcomes.rejected),
    }


def contradictions(records: Sequence[Record]) -> list[str]:
    """Say what images contradict each other in: those of a study, and those of one Patient ID.

    An anonymiser that gives everybody one Patient ID is found out by the birth dates.
    """
    found = []
    for study, images in _grouped(records, lambda record: record["study"]):
        for key, words in WHOSE.items():
            if (count := _values(images, key)) > 1:
                found.append(f"study {study[:8]}: its images name {count} {words}")
    named = [record for record in records if record["whose"]["id"]]
    for _, images in _grouped(named, lambda r: (r["whose"]["id"], r["whose"]["issuer"])):
        studies = len({record["study"] for record in images})
        for key in ("birth_date", "sex"):
            if studies > 1 and (count := _values(images, key)) > 1:
                found.append(
                    f"{studies} studies have one Patient ID and {count} {WHOSE[key]}: they may be "
                    "of several patients"
                )
    return found


def _grouped(records: Iterable[Record], key: Any) -> Iterable[tuple[Any, list[Record]]]:
    groups: defaultdict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return groups.items()


def _values(records: Sequence[Record], key: str) -> int:
    return len({record["whose"][key] for record in records} - {""})
