"""Score every model of a comparison on a site's test patients, image by image.

Scores are saved next to the weights, by position, so that a repeated command can reuse them. No
image or patient name is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from mamfed_client.disclosure.evaluation_question import images_sha256
from mamfed_client.preparation.cohort import SplitImage, StoredSamples
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, load_checkpoint
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.metrics.detection import RATES, froc
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.metrics.site_score import THRESHOLDS
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.runtime.bounded import STATE_BYTES, read_values
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import evaluate
from mamfed_simulations.federation.site_models import as_at_site, personal_path, shared_path

HALF = 0.5
"""The fixed threshold, which needs no validation."""
VERSION = 2
"""Version of the scoring; increase it with every change that alters scores of the same weights."""


class Model(NamedTuple):
    """The model of a federation that is tested at a site.

    Attributes:
        folder: The federation's run folder.
        plan: The federation's plan.
        site: Name of the site.
        personal: Whether it is the site's personal model.
    """

    folder: Path
    plan: TrainingPlan
    site: str
    personal: bool = False

    @property
    def path(self) -> Path:
        """Path of its checkpoint."""
        if self.personal:
            return personal_path(self.folder, self.site)
        return shared_path(self.folder)

    def load(self) -> Checkpoint:
        """Return the model with the site's own norms."""
        checkpoint = load_checkpoint(self.path)
        return checkpoint if self.personal else as_at_site(checkpoint, self.folder, self.site)

    @property
    def scores_path(self) -> Path:
        """Path of its saved scores."""
        return self.folder / f"{'personal' if self.personal else 'shared'}-scores-{self.site}.json"


class SiteScores(NamedTuple):
    """Scores of one model on one site's test images.

    Attributes:
        scores: Score of each image at ``HALF``.
        dice_chosen: Dice of each image at the threshold that validation chose.
        patients: Patient of each image; never written to disk.
        breast_pixels: Number of breast pixels of each image.
        kept: Whether the scores were read from an earlier call.
    """

    scores: list[ImageScore]
    dice_chosen: list[float]
    patients: list[str]
    breast_pixels: list[int]
    kept: bool = False


class SiteResult(NamedTuple):
    """Results of one arm's models on one site's test patients, over all folds.

    Attributes:
        seeds: The seeds for which every fold was scored.
        dice: ``(seeds, images)``: Dice at 0.5 of each image with malignancy.
        dice_chosen: ``(seeds, images)``: the same at the threshold that validation chose.
        patients: Patient of each image with malignancy, as a number within the site.
        marked: ``(seeds, images)``: marked share of the breast at 0.5 on images without malignancy.
        other_patients: Patient of each image without malignancy, likewise.
        lesions: Number of malignant regions in a seed's images.
        lesions_found: Number of those found, mean over seeds.
        sensitivity_at: Share of lesions found at each of ``RATES`` false positives per image, mean
            over seeds; None without a lesion.
    """

    seeds: tuple[int, ...]
    dice: np.ndarray
    dice_chosen: np.ndarray
    patients: tuple[int, ...]
    marked: np.ndarray
    other_patients: tuple[int, ...]
    lesions: int
    lesions_found: float
    sensitivity_at: tuple[float, ...] | None

    def dice_by_seed(self) -> list[float]:
        """Return the mean Dice of each seed; empty if no image shows malignancy."""
        return self.dice.mean(axis=-1).tolist() if self.patients else []


def score_models(
    models: Mapping[str, Model], sites: Sequence[Site], device: str
) -> dict[str, SiteScores]:
    """Score each site's model on that site's test images.

    Raises:
        MamfedError: A checkpoint is unusable.
    """
    by_name = {site.name: site for site in sites}
    return {name: _scored(model, by_name[name], device) for name, model in models.items()}


def result_of(by_seed: Mapping[int, Sequence[SiteScores]]) -> SiteResult:
    """Combine one site's scores; those of a seed's folds are concatenated."""
    runs = [_joined(folds) for folds in by_seed.values()]
    first = runs[0]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(first.patients))}
    malignant = [i for i, score in enumerate(first.scores) if score.lesion_pixels]
    other = [i for i, score in enumerate(first.scores) if not score.lesion_pixels]

    def values(indices: Sequence[int], value: Callable[[SiteScores, int], float]) -> np.ndarray:
        return np.array([[value(run, i) for i in indices] for run in runs], np.float64)

    def patients_of(indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(numbers[first.patients[i]] for i in indices)

    curves = [froc(run.scores) for run in runs]
    at = [[c.sensitivity_at(rate) for rate in RATES] for c in curves if c is not None]
    return SiteResult(
        seeds=tuple(by_seed),
        dice=values(malignant, lambda run, i: run.scores[i].dice),
        dice_chosen=values(malignant, lambda run, i: run.dice_chosen[i]),
        patients=patients_of(malignant),
        marked=values(other, lambda run, i: run.scores[i].predicted_pixels / run.breast_pixels[i]),
        other_patients=patients_of(other),
        lesions=sum(score.lesions for score in first.scores),
        lesions_found=float(np.mean([sum(s.lesions_found for s in r.scores) for r in runs])),
        sensitivity_at=tuple(np.mean(at, axis=0).tolist()) if at else None,
    )


def _joined(folds: Sequence[SiteScores]) -> SiteScores:
    return SiteScores(
        scores=[score for fold in folds for score in fold.scores],
        dice_chosen=[dice for fold in folds for dice in fold.dice_chosen],
        patients=[patient for fold in folds for patient in fold.patients],
        breast_pixels=[pixels for fold in folds for pixels in fold.breast_pixels],
    )


def _scored(model: Model, site: Site, device: str) -> SiteScores:
    placed = tested(site, model.plan)
    samples = StoredSamples(placed)
    checkpoint = model.load()
    threshold = checkpoint.facts.threshold or model.plan.evaluation.threshold

    def score(at: float) -> list[ImageScore]:
        plan = with_threshold(model.plan, at)
        return evaluate(checkpoint.state, samples, plan, device=choose_device(device))

    question = Fingerprint.of(
        version=VERSION,
        mamfed_version=__version__,
        weights_sha256=state_sha256(checkpoint.state),  # checkpoint facts omit a site's own norms
        plan_sha256=model.plan.sha256(),
        images=images_sha256(placed),
        device=choose_device(device).type,
        threads=torch.get_num_threads(),
    )
    scores, kept = _load_or_score(model.scores_path, question, lambda: score(HALF))
    if threshold in THRESHOLDS:
        chosen = [image.dice_at[THRESHOLDS.index(threshold)] for image in scores]
    else:
        chosen = [image.dice for image in score(threshold)]
    return SiteScores(
        scores=scores,
        dice_chosen=chosen,
        patients=[image.case.row.patient_id for image in placed],
        breast_pixels=[int(sample.breast_mask.sum()) for sample in samples],
        kept=kept,
    )


def tested(site: Site, plan: TrainingPlan) -> list[SplitImage]:
    """Return a site's test images, those with malignancy first."""
    placed = [image for c in load_site(site, plan).cohorts for image in c.images]
    return [
        image
        for purpose in EVALUATED_ON
        for image in placed
        if image.part == "test" and purpose in image.case.purposes
    ]


_SCORES = TypeAdapter(list[ImageScore])


def _load_or_score(
    path: Path, question: Fingerprint, score: Callable[[], list[ImageScore]]
) -> tuple[list[ImageScore], bool]:
    """Return saved scores with this fingerprint, or compute and save them.

    Returns:
        The scores, and whether they were saved before.
    """
    try:
        saved = read_values(path, STATE_BYTES)
        if saved["of"] == question.sha256:
            return _SCORES.validate_python(saved["scores"]), True
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        pass  # missing, truncated or of another fingerprint
    scores = [image._replace(image="") for image in score()]
    content = {"of": question.sha256, "scores": _SCORES.dump_python(scores, mode="json")}
    write_atomic(path, json.dumps(content) + "\n")
    return scores, False
