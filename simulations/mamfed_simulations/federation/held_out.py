"""Results of a run on the held-out images, image by image, for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.metrics.bootstrap import patient_bootstrap
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import evaluate, load_network, predict
from mamfed_server.report.data import CaseNote, Interval, SiteGain
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.site_gains import measure_gains
from mamfed_simulations.federation.site_models import as_at_site
from mamfed_simulations.reporting.figure2 import Case, by_site

CASES_PER_SITE = 3
WORST_CASES = 10


@dataclass(frozen=True)
class HeldOutResult:
    """Results of the chosen checkpoint on the held-out images with malignancy.

    Attributes:
        cases: Best, median and worst case of each site, for figure 2.
        worst: Cases with the lowest Dice over all sites, lowest first.
        intervals: Interval of each site's mean Dice, over patients.
        promises: Each site's gain from taking part.
        threshold: Probability from which a pixel is marked.
    """

    cases: Sequence[Case] = ()
    worst: Sequence[CaseNote] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    promises: Sequence[SiteGain] = ()
    threshold: float = 0.5


def _note(site: str, score: ImageScore, vendor: str | None) -> CaseNote:
    return CaseNote(site=site, image=score.image, vendor=vendor or "unknown", dice=score.dice)


def measure(
    sites: Sequence[Site], plan: TrainingPlan, run_folder: Path, device_name: str
) -> HeldOutResult:
    """Score every site's held-out images with malignancy again, image by image.

    Args:
        sites: The sites.
        plan: The plan of the run.
        run_folder: Its folder, with the chosen checkpoint.
        device_name: Device, as in ``ArmHardware``.
    """
    device = choose_device(device_name)
    if not plan.finetuning.rounds:
        return HeldOutResult()
    shared = load_checkpoint(RunFolder(run_folder).checkpoint_path("best"))
    plan = with_threshold(plan, shared.facts.threshold)
    cases: list[Case] = []
    notes: list[CaseNote] = []
    intervals = {}
    for site in sites:
        data = load_site(site, plan)
        state, _, painted_by = as_at_site(shared, run_folder, site.name)
        network = load_network(state, plan, device)
        painter = None if painted_by is None else load_network(painted_by, plan, device)
        samples = data.samples(["malignant"], "test")
        rows = {i.case.row.image: i.case.row for c in data.cohorts for i in c.images}
        scores = evaluate(state, samples, plan, device=device)
        own = [_note(site.name, score, rows[score.image].vendor) for score in scores]
        for index in _best_median_worst(scores):
            (prediction,) = predict(network, [samples[index]], plan, device, painter)
            note = own[index]
            cases.append(
                Case(note.site, note.image, note.vendor, note.dice, samples[index], prediction)
            )
        if scores:
            patients = [rows[score.image].patient_id for score in scores]
            mean = patient_bootstrap(patients, np.array([score.dice for score in scores]))
            intervals[site.name] = Interval(low=mean.low, high=mean.high, patients=mean.patients)
        notes += own
    worst = sorted(notes, key=lambda note: (note.dice, note.site, note.image))[:WORST_CASES]
    promises = measure_gains(sites, run_folder, device)
    return HeldOutResult(by_site(cases), worst, intervals, promises, plan.evaluation.threshold)


def _best_median_worst(scores: Sequence[ImageScore]) -> list[int]:
    """Return the indices of up to three scores, from the highest Dice to the lowest."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i].dice)
    if len(order) <= CASES_PER_SITE:
        return order
    return [order[0], order[len(order) // 2], order[-1]]
