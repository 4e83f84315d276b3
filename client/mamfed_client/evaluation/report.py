"""What an evaluation says: its JSON document, and the lines that a person reads of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mamfed_common.errors import OutputError
from mamfed_common.metrics.bootstrap import Interval, Statistic, mean, patient_bootstrap
from mamfed_common.metrics.detection import RATES, froc, peaks_and_truth, roc_area
from mamfed_common.metrics.scores import HALF, THRESHOLDS, ImageScore, summarise
from mamfed_common.metrics.small_numbers import few_patients
from mamfed_common.metrics.strata import ImageFacts, found_and_lesions, share_found, stratify
from mamfed_common.runtime.fingerprint import Fingerprint, describe_differences
from mamfed_common.runtime.wording import counted

MAKER = "mamfed-client evaluate"


class Evaluated(NamedTuple):
    """A folder's scored images.

    Attributes:
        scores: Each image's score, in the table's order.
        facts: What is known of each, by its name.
        min_images: Images without which a stratum is withheld.
    """

    scores: Sequence[ImageScore]
    facts: Mapping[str, ImageFacts]
    min_images: int

    def interval(
        self,
        scores: Sequence[ImageScore],
        values: np.ndarray,
        statistic: Statistic = mean,
    ) -> dict[str, Any] | None:
        """Return a figure over some of the images, ``(..., images)``, with its interval."""
        patients = [self.facts[score.image].patient for score in scores]
        if not patients:
            return None
        found = patient_bootstrap(patients, values, statistic)
        return None if np.isnan(found.value) else _told(found)


def document_of(evaluated: Evaluated) -> dict[str, Any]:
    """Lay out figures, the counts behind them, strata, then all images in their order."""
    scores = evaluated.scores
    summary = summarise(scores)
    malignant = [score for score in scores if score.lesion_pixels]
    strata = stratify(scores, evaluated.facts, evaluated.min_images)
    return {
        "mean_dice": summary.dice,
        "images": summary.images,
        "sensitivity": summary.sensitivity,
        "lesions": summary.lesions,
        "lesions_found": summary.lesions_found,
        "lesions_redrawn": summary.lesions_redrawn,
        "redrawn_as_tissue": summary.redrawn_as_tissue,
        "redrawn_minus_ring": summary.redrawn_minus_ring,
        "images_without_malignancy": summary.images_without_malignancy,
        "false_positive_pixels": summary.false_positive_pixels,
        "mean_iou": summary.iou,
        "auroc": summary.auroc,
        "intervals": _intervals(evaluated, malignant),
        "hausdorff95_left_out": _without_distance(malignant, evaluated.facts),
        "froc": _froc(scores),
        "dice_at": summary.dice_at
        and {str(at): dice for at, dice in zip(THRESHOLDS, summary.dice_at, strict=True)},
        "strata": [
            {**s._asdict(), "dice": _told(s.dice), "sensitivity": _told(s.sensitivity)}
            for s in strata.shown
        ],
        "strata_withheld": [withheld._asdict() for withheld in strata.withheld],
        "per_image": [_row(score) for score in malignant],
        "per_image_without_malignancy": [_row(s) for s in scores if not s.lesion_pixels],
    }


def _told(interval: Interval) -> dict[str, Any]:
    """Return an interval for JSON, and whether it is over too few patients to say much."""
    return {**interval._asdict(), "few_patients": few_patients(interval.patients)}


def what_is_replaced(out: Path, question: Fingerprint) -> tuple[str, ...]:
    """Look at the file that an evaluation is to be written to.

    Returns:
        A note where it holds the evaluation of another question, or of the same.

    Raises:
        OutputError: It holds something else.
    """
    if not out.exists():
        return ()
    try:
        held = json.loads(out.read_bytes())
        kept = held.get("question", {})
        ours = kept.get("made_by") == MAKER or {"mean_dice", "weights_sha256"} <= held.keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise OutputError(f"{out}: exists and is not an evaluation; choose another --out")
    different = question.differences(kept)
    if not different:
        return (f"{out}: held the same evaluation, which is made anew",)
    return (
        f"{out}: replaces the evaluation of another question: {describe_differences(different)}",
    )


def without_images(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be printed of a document: a terminal's output may be kept as a log."""
    return {key: value for key, value in document.items() if not key.startswith("per_image")}


def sentences(document: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person reads of a document."""
    intervals, curve = document["intervals"], document["froc"]
    lines = [
        *_scored(document),
        _line("Dice", intervals["dice"]),
        _line("IoU", intervals["iou"]),
        _line(f"sensitivity ({document['lesions']} lesions)", intervals["sensitivity"]),
        _line("false-positive pixels an image", intervals["false_positive_pixels"]),
        _line("AUROC", intervals["auroc"]),
        _line("Hausdorff 95 in mm", intervals["hausdorff95_mm"]),
    ]
    if curve:
        at = ", ".join(f"{share:.2f} at {rate}" for rate, share in curve["sensitivity_at"].items())
        lines.append(
            f"sensitivity by false positives an image: {at} "
            f"({counted(curve['lesions'], 'lesion')}, {counted(curve['images'], 'image')})"
        )
    lines.append(_redrawn(document))
    lines.append(f"marked from {document['threshold']:g}, by {document['threshold_from']}")
    if document["threshold"] != HALF and document["dice_at"]:
        lines.append(f"Dice at {HALF}: {document['dice_at'][str(HALF)]:.3f}")
    return lines


def _scored(document: Mapping[str, Any]) -> list[str]:
    """Say how many rows stand behind all figures, and what became of each other one."""
    scored = document["images"] + document["images_without_malignancy"]
    rows = counted(document["rows"], "row")
    lines = [f"scored: {counted(scored, 'image')} of {rows}, {document['images']} with malignancy"]
    for word, counts in (("rejected", "rejected"), ("left out", "left_out")):
        lines += [f"not scored: {count} {word}: {why}" for why, count in document[counts].items()]
    if document["of_other_parts"]:
        lines.append(f"not scored: {document['of_other_parts']} of other parts or uses")
    if withheld := document["strata_withheld"]:
        lines.append(f"withheld: {len(withheld)} strata of too few images")
    distances = document["hausdorff95_left_out"].items()
    lines += [
        f"without a Hausdorff distance: {counted(n, 'image')}: {why}" for why, n in distances if n
    ]
    return lines


def _redrawn(document: Mapping[str, Any]) -> str:
    lesions, minus_ring = document["lesions_redrawn"], document["redrawn_minus_ring"]
    what = "found lesions redrawn as tissue"
    if not lesions:
        none = "the model has no painter" if lesions is None else "no found lesion could be judged"
        return f"{what}: n/a, {none}"
    return (
        f"{what}: {document['redrawn_as_tissue']} of {lesions}, "
        f"{minus_ring:+.3f} against the tissue around them"
    )


def _intervals(evaluated: Evaluated, malignant: Sequence[ImageScore]) -> dict[str, Any]:
    """Return every figure with its interval over patients; None where no image stands behind."""
    other = [score for score in evaluated.scores if not score.lesion_pixels]
    measured = [score for score in malignant if score.hausdorff95_mm is not None]

    def over(
        scores: Sequence[ImageScore], value: Callable[[ImageScore], float | None]
    ) -> dict[str, Any] | None:
        return evaluated.interval(scores, np.array([value(s) for s in scores], np.float64))

    return {
        "dice": over(malignant, lambda score: score.dice),
        "iou": over(malignant, lambda score: score.iou),
        "sensitivity": evaluated.interval(malignant, found_and_lesions(malignant), share_found),
        "false_positive_pixels": over(other, lambda score: score.predicted_pixels),
        "auroc": evaluated.interval(evaluated.scores, peaks_and_truth(evaluated.scores), roc_area),
        "hausdorff95_mm": over(measured, lambda score: score.hausdorff95_mm),
    }


def _without_distance(
    malignant: Sequence[ImageScore], facts: Mapping[str, ImageFacts]
) -> dict[str, int]:
    """Count the images with malignancy that have no Hausdorff distance, by reason."""
    unknown = sum(facts[score.image].spacing_mm is None for score in malignant)
    without = sum(score.hausdorff95_mm is None for score in malignant)
    return {"no pixel size": unknown, "nothing marked": without - unknown}


def _froc(scores: Sequence[ImageScore]) -> dict[str, Any] | None:
    curve = froc(scores)
    if curve is None:
        return None
    return {
        "images": curve.images,
        "lesions": curve.lesions,
        "sensitivity_at": {f"{rate:g}": curve.sensitivity_at(rate) for rate in RATES},
        "false_positives_per_image": curve.false_positives_per_image,
        "sensitivity": curve.sensitivity,
    }


def _line(name: str, interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return f"{name}: n/a, over no image"
    found = Interval(**{key: interval[key] for key in Interval._fields})
    ends = "n/a for one patient" if found.low is None else f"{found.low:.3g} to {found.high:.3g}"
    few = few_patients(found.patients) and found.low is not None
    return (
        f"{name}: {found.value:.3g} (95 % interval {ends}; {counted(found.images, 'image')}, "
        f"{counted(found.patients, 'patient')}{': so few that the interval says little' * few})"
    )


def _row(score: ImageScore) -> dict[str, Any]:
    """Return an image's result as JSON holds it; overlap without a lesion is no figure."""
    row = score._asdict()
    row["lesion_scores"] = [lesion._asdict() for lesion in score.lesion_scores]
    if score.redrawn is not None:
        row["redrawn"] = [lesion._asdict() for lesion in score.redrawn]
    row |= {"lesions": score.lesions, "lesions_found": score.lesions_found}
    nothing = dict.fromkeys(("dice", "iou", "dice_at"))
    return row if score.lesion_pixels else {**row, **nothing}
