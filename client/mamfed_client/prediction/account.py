"""The summary of a ``predict`` call: the results of its images, and the contents of the folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mamfed_client.imaging.rejections import Rejection
from mamfed_client.prediction.folder import PredictionFolder, Record
from mamfed_client.prediction.kinds import WORDS
from mamfed_client.prediction.model import NOTICE, LoadedModel
from mamfed_client.prediction.sources import FoundSources, Source
from mamfed_client.preparation.cohort import tally

WHOSE = {
    "id": "Patient IDs",
    "issuer": "issuers of the Patient ID",
    "birth_date": "birth dates",
    "sex": "sexes",
}
"""Attributes that must be the same for all images of a study, in words."""


@dataclass(slots=True)
class PredictionCounts:
    """Counts of what happened to this call's images; threads add to them.

    Attributes:
        predicted: Images predicted now.
        done_before: Images whose up-to-date prediction the folder already held.
        duplicates: Images whose file is identical to another one of this call.
        contradicted: Duplicates for which a table or file name differs.
        own: Files of earlier predictions among the inputs.
        rejected: Images that cannot be used.
        kept: Records of images done before, with the current source of each.
        outdated: Records of images whose table row or file name has changed.
        replaced: Records of files that now hold another image or are rejected.
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
    """Return what a call would do, without doing it."""
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
    """Describe everything that the folder holds, and what this call skipped."""
    records = folder.records()
    missing = tally(r["segmentation_missing"] for r in records if not r["segmentation"])
    objects = [record.get("objects", {}) for record in records]
    not_made = [record.get("objects_missing", {}) for record in records]
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
        "objects": tally(kind for made in objects for kind in made),
        "without_object": tally(
            f"{WORDS[kind]}: {why}"
            for reasons in not_made
            for kind, why in reasons.items()
            if kind != "seg"
        ),
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
    """Count the images that were not predicted now, and the results that were discarded."""
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
    """Return contradictions between images of one study, and between those of one Patient ID.

    Birth dates reveal an anonymiser that gives all patients the same Patient ID.
    """
    lines = []
    for study, images in _grouped(records, lambda record: record["study"]):
        for key, words in WHOSE.items():
            if (count := _values(images, key)) > 1:
                lines.append(f"study {study[:8]}: its images name {count} {words}")
    named = [record for record in records if record["whose"]["id"]]
    for _, images in _grouped(named, lambda r: (r["whose"]["id"], r["whose"]["issuer"])):
        studies = len({record["study"] for record in images})
        for key in ("birth_date", "sex"):
            if studies > 1 and (count := _values(images, key)) > 1:
                lines.append(
                    f"{studies} studies share one Patient ID but have {count} {WHOSE[key]}: they "
                    "may belong to several patients"
                )
    return lines


def _grouped(records: Iterable[Record], key: Any) -> Iterable[tuple[Any, list[Record]]]:
    groups: defaultdict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return groups.items()


def _values(records: Sequence[Record], key: str) -> int:
    return len({record["whose"][key] for record in records} - {""})
