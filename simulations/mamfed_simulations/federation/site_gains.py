"""Measure each site's gain from taking part: its shared, personal and local-only models.

All are scored on the site's own held-out images, so differences are paired by patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mamfed_client.preparation.site_data import Site, SiteData, load_site
from mamfed_common.checkpoint import Checkpoint, load_checkpoint
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.metrics.bootstrap import paired_difference
from mamfed_common.plan import with_threshold
from mamfed_common.training.inference import evaluate
from mamfed_server.report.data import DiceDifference, SiteGain
from mamfed_simulations.federation.arms import LOCAL
from mamfed_simulations.federation.site_models import as_at_site, personal_path, shared_path


class SiteScores(NamedTuple):
    """Scores of one model on one site's test images, in image order.

    Attributes:
        dice: Dice of each image with malignancy.
        patients: Patient of each image with malignancy.
        marked: Marked share of the breast on each other image, 0..1.
        other_patients: Patient of each other image.
    """

    dice: list[float]
    patients: list[str]
    marked: list[float]
    other_patients: list[str]


def measure_gains(sites: Sequence[Site], out: Path, device: torch.device) -> list[SiteGain]:
    """Score each site's models in a run folder on that site's test images.

    Args:
        sites: The sites.
        out: The run folder; local-only models, if any, lie below it.
        device: Device on which to run the networks.

    Returns:
        The gain of each site that has a test image.
    """
    gains = []
    for site in sites:
        models = {
            "shared": _shared_at(out, site.name),
            "personal": _model_at(personal_path(out, site.name)),
            "local": _shared_at(out / "arms" / f"{LOCAL}-{site.name}", site.name),
        }
        known = {name: model for name, model in models.items() if model is not None}
        data = load_site(site, models["shared"].facts.plan) if models["shared"] else None
        if data is not None and len(data.samples(EVALUATED_ON, "test")):
            gains.append(_gain(data, known, device))
    return gains


def _shared_at(folder: Path, site: str) -> Checkpoint | None:
    shared = _model_at(shared_path(folder))
    return shared and as_at_site(shared, folder, site)


def _model_at(path: Path) -> Checkpoint | None:
    return load_checkpoint(path) if path.exists() else None


def _gain(data: SiteData, models: Mapping[str, Checkpoint], device: torch.device) -> SiteGain:
    scored = {name: _scored(model, data, device) for name, model in models.items()}
    shared = scored["shared"]
    return SiteGain(
        site=data.name,
        images=len(shared.patients),
        patients=len(set(shared.patients)),
        dice={name: float(np.mean(s.dice)) for name, s in scored.items() if s.dice},
        minus_local=_minus_local(scored),
        other_images=len(shared.marked),
        other_patients=len(set(shared.other_patients)),
        marked={name: float(np.mean(s.marked)) for name, s in scored.items() if s.marked},
    )


def _minus_local(scored: Mapping[str, SiteScores]) -> dict[str, DiceDifference]:
    """Return paired differences to the local-only model; empty if there is no such model."""
    if "local" not in scored or not scored["local"].dice:
        return {}
    local = scored["local"]
    differences = {
        name: paired_difference(local.patients, np.array(local.dice), np.array(own.dice))
        for name, own in scored.items()
        if name != "local"
    }
    return {
        name: DiceDifference(value=d.value, low=d.low, high=d.high)
        for name, d in differences.items()
    }


def _scored(model: Checkpoint, data: SiteData, device: torch.device) -> SiteScores:
    """Score a model on the test images at its own threshold.

    As in ``SiteScore``, an image is malignant if its mask is not empty at the plan's image size.
    """
    plan = with_threshold(model.facts.plan, model.facts.threshold)
    samples = data.samples(EVALUATED_ON, "test")
    scores = evaluate(model.state, samples, plan, device=device)
    both = list(zip(scores, data.patients(EVALUATED_ON, "test"), samples, strict=True))
    malignant = [(score.dice, patient) for score, patient, _ in both if score.lesion_pixels]
    other = [
        (score.predicted_pixels / max(1, int(sample.breast_mask.sum())), patient)
        for score, patient, sample in both
        if not score.lesion_pixels
    ]
    return SiteScores(
        dice=[dice for dice, _ in malignant],
        patients=[patient for _, patient in malignant],
        marked=[marked for marked, _ in other],
        other_patients=[patient for _, patient in other],
    )
