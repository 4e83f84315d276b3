"""What a comparison measures: every model at a site's test patients, image by image.

Scores are kept beside the weights, by position, so that the same command need not take them again;
no name of an image or a patient is written.
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
from mamfed_common.metrics.scores import THRESHOLDS, ImageScore
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import evaluate
from mamfed_simulations.federation.site_models import as_at_site, personal_path, shared_path

HALF = 0.5
"""The threshold that nobody chooses."""
VERSION = 2
"""To be raised with every change that makes other scores of the same weights."""


class Model(NamedTuple):
    """The model of a federation that a site is measured with.

    Attributes:
        folder: The federation's run folder.
        plan: Its plan.
        site: The site.
        personal: Whether it is the one that the site has made for its own patients.
    """

    folder: Path
    plan: TrainingPlan
    site: str
    personal: bool = False

    @property
    def path(self) -> Path:
        """Where its checkpoint lies."""
        if self.personal:
            return personal_path(self.folder, self.site)
        return shared_path(self.folder)

    def load(self) -> Checkpoint:
        """Return it as the site has it."""
        found = load_checkpoint(self.path)
        return found if self.personal else as_at_site(found, self.folder, self.site)

    @property
    def scores_path(self) -> Path:
        """Where its scores are kept."""
        return self.folder / f"{'personal' if self.personal else 'shared'}-scores-{self.site}.json"


class SiteScores(NamedTuple):
    """One model at one site's test images.

    Attributes:
        scores: Each image's score at ``HALF``.
        dice_chosen: Each image's Dice at the threshold that validation chose.
        patients: Whose each image is; it stays in memory.
        breast_pixels: Pixels of each image's breast.
        kept: Whether an earlier call has taken the scores.
    """

    scores: list[ImageScore]
    dice_chosen: list[float]
    patients: list[str]
    breast_pixels: list[int]
    kept: bool = False


class SiteResult(NamedTuple):
    """One arm's models at one site's test patients, of all folds.

    Attributes:
        seeds: The seeds of which every fold was measured.
        dice: ``(seeds, images)``: Dice at 0.5 of each image with malignancy.
        dice_chosen: Likewise, at the threshold that validation chose.
        patients: Whose each of those images is, as a number within the site.
        marked: ``(seeds, images)``: marked share of the breast at 0.5, on images without.
        other_patients: Whose each of those is.
        lesions: Malignant regions of a seed's images.
        lesions_found: How many of them were found, the mean over seeds.
        sensitivity_at: Share of lesions hit at each of ``RATES`` false positives an image, the
            mean over seeds; None without a lesion.
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
        """Return the mean Dice of each seed; empty without an image with malignancy."""
        return self.dice.mean(axis=-1).tolist() if self.patients else []


def score_models(
    models: Mapping[str, Model], sites: Sequence[Site], device: str
) -> dict[str, SiteScores]:
    """Score the model of each site on its test images.

    Raises:
        MamfedError: A checkpoint cannot be used.
    """
    by_name = {site.name: site for site in sites}
    return {name: _scored(model, by_name[name], device) for name, model in models.items()}


def result_of(by_seed: Mapping[int, Sequence[SiteScores]]) -> SiteResult:
    """Gather one site's scores: those of each seed's folds one after the other."""
    runs = [_joined(folds) for folds in by_seed.values()]
    first = runs[0]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(first.patients))}
    malignant = [i for i, score in enumerate(first.scores) if score.lesion_pixels]
    other = [i for i, score in enumerate(first.scores) if not score.lesion_pixels]

    def of(chosen: Sequence[int], value: Callable[[SiteScores, int], float]) -> np.ndarray:
        return np.array([[value(run, i) for i in chosen] for run in runs], np.float64)

    def whose(chosen: Sequence[int]) -> tuple[int, ...]:
        return tuple(numbers[first.patients[i]] for i in chosen)

    curves = [froc(run.scores) for run in runs]
    at = [[c.sensitivity_at(rate) for rate in RATES] for c in curves if c is not None]
    return SiteResult(
        seeds=tuple(by_seed),
        dice=of(malignant, lambda run, i: run.scores[i].dice),
        dice_chosen=of(malignant, lambda run, i: run.dice_chosen[i]),
        patients=whose(malignant),
        marked=of(other, lambda run, i: run.scores[i].predicted_pixels / run.breast_pixels[i]),
        other_patients=whose(other),
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

    def take(at: float) -> list[ImageScore]:
        plan = with_threshold(model.plan, at)
        return evaluate(checkpoint.state, samples, plan, device=choose_device(device))

    question = Fingerprint.of(
        version=VERSION,
        mamfed_version=__version__,
        weights_sha256=state_sha256(checkpoint.state),  # a site's own norms are in no facts
        plan_sha256=model.plan.sha256(),
        images=images_sha256(placed),
        device=choose_device(device).type,
        threads=torch.get_num_threads(),
    )
    scores, kept = _kept(model.scores_path, question, lambda: take(HALF))
    if threshold in THRESHOLDS:
        chosen = [score.dice_at[THRESHOLDS.index(threshold)] for score in scores]
    else:
        chosen = [score.dice for score in take(threshold)]
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


def _kept(
    path: Path, question: Fingerprint, take: Callable[[], list[ImageScore]]
) -> tuple[list[ImageScore], bool]:
    """Return scores that were kept of this question, or take and keep them; and which it was."""
    try:
        found = json.loads(path.read_bytes())
        if found["of"] == question.sha256:
            return _SCORES.validate_python(found["scores"]), True
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        pass  # not there, cut short, or of another question
    scores = [score._replace(image="") for score in take()]
    content = {"of": question.sha256, "scores": _SCORES.dump_python(scores, mode="json")}
    write_atomic(path, json.dumps(content) + "\n")
    return scores, False
