"""What each site gains by taking part, image by image: its shared, personal and local-only models.

All are scored on the site's own held-out images, so differences are paired over patients.
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
    """One model at one site's test images, in the order of the images.

    Attributes:
        dice: Dice of each image with malignancy.
        patients: Whose each of those is.
        marked: Share of the breast that is marked on each other image, 0..1.
        other_patients: Whose each of those is.
    """

    dice: list[float]
    patients: list[str]
    marked: list[float]
    other_patients: list[str]


def measure_gains(sites: Sequence[Site], out: Path, device: torch.device) -> list[SiteGain]:
    """Score every model that a run folder has of each site, at that site.

    Args:
        sites: The sites.
        out: The run folder; local-only models, where there are any, are below it.
        device: Where to run the networks.

    Returns:
        A promise for each site that has a test image.
    """
    found = []
    for site in sites:
        models = {
            "shared": _shared_at(out, site.name),
            "personal": _model_at(personal_path(out, site.name)),
            "local": _shared_at(out / "arms" / f"{LOCAL}-{site.name}", site.name),
        }
        known = {name: model for name, model in models.items() if model is not None}
        data = load_site(site, models["shared"].facts.plan) if models["shared"] else None
        if data is not None and len(data.samples(EVALUATED_ON, "test")):
            found.append(_promise(data, known, device))
    return found


def _shared_at(folder: Path, site: str) -> Checkpoint | None:
    found = _model_at(shared_path(folder))
    return found and as_at_site(found, folder, site)


def _model_at(path: Path) -> Checkpoint | None:
    return load_checkpoint(path) if path.exists() else None


def _promise(data: SiteData, models: Mapping[str, Checkpoint], device: torch.device) -> SiteGain:
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
    """Return the paired differences to the local-only model; none where there is none."""
    if "local" not in scored or not scored["local"].dice:
        return {}
    local = scored["local"]
    found = {
        name: paired_difference(local.patients, np.array(local.dice), np.array(own.dice))
        for name, own in scored.items()
        if name != "local"
    }
    return {n: DiceDifference(value=d.value, low=d.low, high=d.high) for n, d in found.items()}


def _scored(model: Checkpoint, data: SiteData, device: torch.device) -> SiteScores:
    """Score a model on the test images at its own threshold.

    They are split as in ``SiteScore``: by whether the plan's grid still shows malignancy.
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
