"""The results of an evaluation: its JSON document, and the lines printed from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mamfed_common.errors import OutputError
from mamfed_common.metrics.bootstrap import Interval, Statistic, mean, patient_bootstrap
from mamfed_common.metrics.detection import RATES, froc, peaks_and_truth, roc_area
from mamfed_common.metrics.scores import ImageScore, summarise
from mamfed_common.metrics.site_score import HALF, THRESHOLDS
from mamfed_common.metrics.small_numbers import few_patients
from mamfed_common.metrics.strata import ImageFacts, found_and_lesions, share_found, stratify
from mamfed_common.runtime.bounded import STATE_BYTES, read_values
from mamfed_common.runtime.fingerprint import Fingerprint, describe_differences
from mamfed_common.runtime.wording import counted

MAKER = "mamfed-client evaluate"


class Evaluated(NamedTuple):
    """A folder's scored images.

    Attributes:
        scores: The score of each image, in table order.
        facts: The facts about each image, by its name.
        min_images: Strata with fewer images are withheld.
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
        """Return a statistic with its interval; ``values`` is ``(..., images)``."""
        patients = [self.facts[score.image].patient for score in scores]
        if not patients:
            return None
        interval = patient_bootstrap(patients, values, statistic)
        return None if np.isnan(interval.value) else _interval_json(interval)


def document_of(evaluated: Evaluated) -> dict[str, Any]:
    """Return the document: figures, the counts behind them, strata, then all images in order."""
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
            {
                **s._asdict(),
                "dice": _interval_json(s.dice),
                "sensitivity": _interval_json(s.sensitivity),
            }
            for s in strata.shown
        ],
        "strata_withheld": [withheld._asdict() for withheld in strata.withheld],
        "per_image": [_row(score) for score in malignant],
        "per_image_without_malignancy": [_row(s) for s in scores if not s.lesion_pixels],
    }


def _interval_json(interval: Interval) -> dict[str, Any]:
    """Return an interval as JSON, with a flag if it covers too few patients to be meaningful."""
    return {**interval._asdict(), "few_patients": few_patients(interval.patients)}


def what_is_replaced(out: Path, question: Fingerprint) -> tuple[str, ...]:
    """Check the file that an evaluation will be written to.

    Returns:
        A note if the file holds an evaluation, saying how its question differs.

    Raises:
        OutputError: The file holds something else.
    """
    if not out.exists():
        return ()
    try:
        held = read_values(out, STATE_BYTES)
        kept = held.get("question", {})
        ours = kept.get("made_by") == MAKER or {"mean_dice", "weights_sha256"} <= held.keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise OutputError(f"{out}: exists and is not an evaluation; choose another --out")
    differences = question.differences(kept)
    if not differences:
        return (f"{out}: the same evaluation exists and will be repeated",)
    return (f"{out}: replaces a different evaluation: {describe_differences(differences)}",)


def without_images(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without its images, for printing: terminal output may end up in logs."""
    return {key: value for key, value in document.items() if not key.startswith("per_image")}


def sentences(document: Mapping[str, Any]) -> list[str]:
    """Return the lines to print for a document."""
    intervals, curve = document["intervals"], document["froc"]
    lines = [
        *_scored(document),
        _line("Dice", intervals["dice"]),
        _line("IoU", intervals["iou"]),
        _line(f"sensitivity ({document['lesions']} lesions)", intervals["sensitivity"]),
        _line("false-positive pixels per image", intervals["false_positive_pixels"]),
        _line("AUROC", intervals["auroc"]),
        _line("Hausdorff 95 in mm", intervals["hausdorff95_mm"]),
    ]
    if curve:
        at = ", ".join(f"{share:.2f} at {rate}" for rate, share in curve["sensitivity_at"].items())
        lines.append(
            f"sensitivity by false positives per image: {at} "
            f"({counted(curve['lesions'], 'lesion')}, {counted(curve['images'], 'image')})"
        )
    lines.append(_redrawn(document))
    lines.append(f"threshold: {document['threshold']:g}, from {document['threshold_from']}")
    if document["threshold"] != HALF and document["dice_at"]:
        lines.append(f"Dice at {HALF}: {document['dice_at'][str(HALF)]:.3f}")
    return lines


def _scored(document: Mapping[str, Any]) -> list[str]:
    """Return how many rows the figures cover, and why the others are not covered."""
    scored = document["images"] + document["images_without_malignancy"]
    rows = counted(document["rows"], "row")
    lines = [f"scored: {counted(scored, 'image')} of {rows}, {document['images']} with malignancy"]
    for word, counts in (("rejected", "rejected"), ("excluded", "left_out")):
        lines += [f"not scored: {count} {word}: {why}" for why, count in document[counts].items()]
    if document["of_other_parts"]:
        lines.append(f"not scored: {document['of_other_parts']} in other parts or for other uses")
    if withheld := document["strata_withheld"]:
        lines.append(f"withheld: {len(withheld)} strata with too few images")
    distances = document["hausdorff95_left_out"].items()
    lines += [f"no Hausdorff distance: {counted(n, 'image')}: {why}" for why, n in distances if n]
    return lines


def _redrawn(document: Mapping[str, Any]) -> str:
    lesions, minus_ring = document["lesions_redrawn"], document["redrawn_minus_ring"]
    what = "found lesions redrawn as tissue"
    if not lesions:
        why = "the model has no painter" if lesions is None else "no found lesion could be judged"
        return f"{what}: n/a, {why}"
    return (
        f"{what}: {document['redrawn_as_tissue']} of {lesions}, "
        f"{minus_ring:+.3f} compared with the surrounding tissue"
    )


def _intervals(evaluated: Evaluated, malignant: Sequence[ImageScore]) -> dict[str, Any]:
    """Return every figure with its interval over patients; None for a figure without images."""
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
    """Count the malignant images without a Hausdorff distance, by reason."""
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
        return f"{name}: n/a, no images"
    figure = Interval(**{key: interval[key] for key in Interval._fields})
    ends = "n/a for one patient"
    if figure.low is not None:
        ends = f"{figure.low:.3g} to {figure.high:.3g}"
    few = few_patients(figure.patients) and figure.low is not None
    return (
        f"{name}: {figure.value:.3g} (95 % interval {ends}; {counted(figure.images, 'image')}, "
        f"{counted(figure.patients, 'patient')}{': too few for a meaningful interval' * few})"
    )


def _row(score: ImageScore) -> dict[str, Any]:
    """Return an image's result as JSON; without a lesion, its overlap figures are None."""
    row = score._asdict()
    row["lesion_scores"] = [lesion._asdict() for lesion in score.lesion_scores]
    if score.redrawn is not None:
        row["redrawn"] = [lesion._asdict() for lesion in score.redrawn]
    row |= {"lesions": score.lesions, "lesions_found": score.lesions_found}
    nothing = dict.fromkeys(("dice", "iou", "dice_at"))
    return row if score.lesion_pixels else {**row, **nothing}
