"""The personal model beside the shared one, on this site's own test patients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mamfed_client.models.known_scores import ByImage
from mamfed_client.models.model_list import KeptModel, KeptModels, list_models
from mamfed_client.models.model_store import ModelFolder
from mamfed_client.site.settings import SiteHome
from mamfed_common.metrics.bootstrap import Interval, paired_difference, patient_bootstrap
from mamfed_common.metrics.small_numbers import FEW_PATIENTS
from mamfed_common.runtime.wording import counted

LATEST = 10
"""Most runs on the page, the newest."""


class ModelRow(NamedTuple):
    """One model of a run.

    Attributes:
        kind: ``Shared`` or ``Personal``.
        error: Why it cannot be used; empty if it can.
        dice: Mean Dice on the test patients; None if it was not scored.
        low: Lower end of its 95 % interval over patients; None if unknown.
        high: Upper end.
        images: Images with malignancy behind it.
        patients: Their patients; 0 if unknown.
        lesions: Lesions found, in words; empty if unknown.
        false_pixels: Mean marked pixels on an image without malignancy; None if unknown.
        weights: First digits of the SHA-256 of its weights.
    """

    kind: str
    error: str = ""
    dice: float | None = None
    low: float | None = None
    high: float | None = None
    images: int = 0
    patients: int = 0
    lesions: str = ""
    false_pixels: float | None = None
    weights: str = ""


class RunRow(NamedTuple):
    """The models of one run.

    Attributes:
        run: The coordinator's name for the run.
        plan: First digits of the plan's SHA-256.
        models: The shared and the personal model, as far as they are here.
        verdict: Which is better here, in a sentence that says how sure that is.
    """

    run: str
    plan: str
    models: tuple[ModelRow, ...]
    verdict: str


def models_view(home: SiteHome) -> tuple[RunRow, ...]:
    """Read the models that this site keeps, newest run first; each file is verified."""
    runs = list_models(home.models)[: -LATEST - 1 : -1]
    return tuple(_run(home, kept) for kept in runs)


def _run(home: SiteHome, kept: KeptModels) -> RunRow:
    scores = ModelFolder(home.models / kept.folder).scores()
    shared = _row("Shared", kept.shared, scores.shared_images)
    personal = _row("Personal", kept.personal, scores.personal_images)
    return RunRow(
        run=kept.run,
        plan=kept.plan_sha256[:12],
        models=tuple(row for row in (shared, personal) if row is not None),
        verdict=verdict(scores.shared_images, scores.personal_images),
    )


def _row(kind: str, model: KeptModel | None, images: ByImage) -> ModelRow | None:
    if model is None:
        return None
    if model.error or model.score is None:
        return ModelRow(kind, error=model.error, weights=model.weights_sha256[:12])
    score = model.score
    interval = _interval(images) if len(images) == score.images else None
    found = score.lesions is not None and score.lesions_found is not None
    return ModelRow(
        kind=kind,
        dice=score.dice,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        images=score.images or 0,
        patients=interval.patients if interval else 0,
        lesions=f"{score.lesions_found} of {score.lesions}" if found else "",
        false_pixels=score.false_positive_pixels,
        weights=model.weights_sha256[:12],
    )


def _interval(images: ByImage) -> Interval | None:
    if not images:
        return None
    patients, dice = zip(*images, strict=True)
    return patient_bootstrap(patients, np.array(dice))


def verdict(shared: ByImage, personal: ByImage) -> str:
    """Return a sentence that compares the two models on the same images; empty if impossible."""
    patients = [patient for patient, _ in shared]
    if not shared or patients != [patient for patient, _ in personal]:
        return ""
    before, after = (np.array([dice for _, dice in images]) for images in (shared, personal))
    found = paired_difference(patients, before, after)
    how = "higher" if found.value >= 0 else "lower"
    text = f"The personal model's Dice is {abs(found.value):.3f} {how} here"
    if found.low is None or found.high is None:
        return f"{text}; one patient proves nothing."
    text += f" (difference {found.value:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f})"
    few = found.patients < FEW_PATIENTS
    if found.low <= 0 <= found.high:
        return f"{text}: too little to tell them apart."
    if few:
        return f"{text}; {counted(found.patients, 'patient')} are too few to rely on."
    return f"{text}."
