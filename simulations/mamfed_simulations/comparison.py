"""The federated table: ways to train over several sites, measured at each site's test patients.

Each arm and seed is a federation of its own in a folder of its own, so the same command goes on
where it was killed. An arm that fails costs that arm, and is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mamfed_client.cohort import StoredSamples
from mamfed_client.local_norms import LocalNorms
from mamfed_client.site import Joined, Site, SiteData, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.device import choose_device
from mamfed_common.errors import MamfedError, PlanError
from mamfed_common.metrics import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training import evaluate
from mamfed_common.weights import EVALUATED_ON, Purpose, SiteDescription
from mamfed_server.runs import RunFolder
from mamfed_simulations.arms import (
    Arm,
    centralised_arm,
    describe_sites,
    federated_arm,
    leave_one_out_arms,
    local_arms,
)
from mamfed_simulations.federation import run_federation
from mamfed_simulations.progress import Progress

LOCAL, CENTRALISED, FEDAVG, FEDPROX, FEDBN, LEAVE_ONE_OUT = ARMS = (
    "local",
    "centralised",
    "fedavg",
    "fedprox",
    "fedbn",
    "leave-one-out",
)
MEANINGS = {
    LOCAL: "each site trains alone and is measured at its own patients",
    CENTRALISED: "all data pooled, which hospitals cannot do",
    FEDAVG: "the federation as it is",
    FEDPROX: "each site's weights are held near the round's start",
    FEDBN: "each site keeps its own instance norms",
    LEAVE_ONE_OUT: "what a new hospital may expect: the others train, it is measured",
}


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        sites: The sites.
        plan: The plan; each seed replaces its own. Who is held out stays the same.
        out: Folder of the comparison.
        arms: Some of ``ARMS``.
        seeds: One federation an arm and seed.
        proximal_mu: FedProx's weight where the plan has none.
        device: Where sites train.
        threads: CPU threads of each site.
    """

    sites: tuple[Site, ...]
    plan: TrainingPlan
    out: Path
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    proximal_mu: float
    device: str
    threads: int


class SiteResult(NamedTuple):
    """One arm's models at one site's test patients.

    Attributes:
        dice: ``(seeds, images)``: Dice of each image with malignancy.
        patients: Whose each of those images is, as a number within the site.
        false_positives: ``(seeds, images)``: marked share of each image without malignancy.
        other_patients: Whose each of those is.
        lesions: Malignant regions of a seed's images.
        lesions_found: How many of them were found, the mean over seeds.
    """

    dice: np.ndarray
    patients: tuple[int, ...]
    false_positives: np.ndarray
    other_patients: tuple[int, ...]
    lesions: int
    lesions_found: float


class ArmOutcome(NamedTuple):
    """What came of an arm.

    Attributes:
        sites: Its result at each site that was measured.
        missing: The reason for each site or seed without a result.
    """

    sites: dict[str, SiteResult]
    missing: dict[str, str]


def compare(comparison: Comparison, progress: Progress) -> dict[str, ArmOutcome]:
    """Train every arm and seed that is not done yet, and measure all; return outcomes by arm."""
    return {name: _outcome(comparison, name, progress) for name in comparison.arms}


def federations(
    comparison: Comparison, name: str, seed: int, descriptions: Mapping[str, SiteDescription]
) -> tuple[list[tuple[Arm, tuple[str, ...]]], dict[str, str]]:
    """Return the federations of an arm with a seed.

    Returns:
        Each federation and the sites where its model counts; and why a site has none.
    """
    sites, folder = comparison.sites, comparison.out / f"{name}-seed{seed}"
    plan = _plan_of(comparison, name, seed)
    everywhere = tuple(site.name for site in sites)
    if name == LOCAL:
        arms, reasons = local_arms(sites, descriptions, plan, folder)
        return [(a, tuple(a.job.training_sites or ())) for a in arms], reasons
    if name == LEAVE_ONE_OUT:
        left = leave_one_out_arms(sites, descriptions, plan, folder)
        return [(a, tuple(a.job.test_sites or ())) for a in left], {}
    make = centralised_arm if name == CENTRALISED else federated_arm
    return [(make(sites, plan, folder), everywhere)], {}


def _plan_of(comparison: Comparison, name: str, seed: int) -> TrainingPlan:
    """Return the plan that an arm follows: only what the arm is about differs."""
    mu = comparison.plan.federation.proximal_mu or comparison.proximal_mu
    update = {"proximal_mu": mu if name == FEDPROX else 0.0, "local_norms": name == FEDBN}
    federation = comparison.plan.federation.model_copy(update=update)
    return comparison.plan.model_copy(update={"seed": seed, "federation": federation})


def _outcome(comparison: Comparison, name: str, progress: Progress) -> ArmOutcome:
    descriptions = describe_sites(comparison.sites, comparison.plan)
    by_site: dict[str, list[list[ImageScore]]] = {}
    missing: dict[str, str] = {}
    for seed in comparison.seeds:
        arms, reasons = federations(comparison, name, seed, descriptions)
        missing |= reasons
        for arm, measured in arms:
            try:
                _train(comparison, arm, progress)
                scores = _scores(comparison, arm, measured)
            except PlanError:  # the folder holds a comparison of another plan
                raise
            except MamfedError as error:
                missing |= {f"{site}, seed {seed}": str(error) for site in measured}
                progress.say(f"{arm.name}, seed {seed}: {error}")
                continue
            for site, found in scores.items():
                by_site.setdefault(site, []).append(found)
    plan = comparison.plan
    data = {site.name: load_site(site, plan) for site in comparison.sites}
    results = {n: _result(data[n], runs, plan.image_size) for n, runs in sorted(by_site.items())}
    return ArmOutcome(results, missing)


def _train(comparison: Comparison, arm: Arm, progress: Progress) -> None:
    """Run a federation, or what is left of it, behind a progress bar."""
    steps = arm.steps(describe_sites(arm.sites, comparison.plan))
    title = f"{arm.name} {arm.job.plan.seed}"
    on_step, on_round = progress.start(title, arm.job.plan, steps)
    arm.job.folder.parent.mkdir(parents=True, exist_ok=True)
    run_federation(
        arm.sites,
        replace(arm.job, on_round=on_round, resume=True),
        device=comparison.device,
        threads=comparison.threads,
        on_step=on_step,
    )


def _scores(
    comparison: Comparison, arm: Arm, measured: Sequence[str]
) -> dict[str, list[ImageScore]]:
    """Score an arm's chosen model on the test images of some sites, image by image."""
    job = arm.job
    state, facts, _ = load_checkpoint(RunFolder(job.folder).checkpoint_path("best"))
    plan, device = with_threshold(job.plan, facts.threshold), choose_device(comparison.device)
    found = {}
    for site in comparison.sites:
        if site.name not in measured:
            continue
        own = state
        if plan.federation.local_norms:
            norms = LocalNorms(job.folder.absolute() / "norms" / site.name, job.plan)
            own = norms.to_score(state, facts.stage, facts.server_round)
        images = Joined([_tested(load_site(site, plan), purpose) for purpose in EVALUATED_ON])
        found[site.name] = evaluate(own, images, plan, device=device)
    return found


def _tested(data: SiteData, purpose: Purpose) -> StoredSamples:
    placed = [image for c in data.cohorts for image in c.placed]
    return StoredSamples([p for p in placed if p.part == "test" and purpose in p.case.purposes])


def _result(data: SiteData, runs: Sequence[Sequence[ImageScore]], size: int) -> SiteResult:
    """Gather one site's scores over seeds."""
    placed = [image for purpose in EVALUATED_ON for image in _tested(data, purpose).placed]
    ids = [image.case.row.patient_id for image in placed]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(ids))}
    with_lesion = [bool(score.lesion_pixels) for score in runs[0]]

    def of(wanted: bool, value: Callable[[ImageScore], float]) -> np.ndarray:
        return np.array(
            [[value(s) for s in run if bool(s.lesion_pixels) == wanted] for run in runs]
        )

    def whose(wanted: bool) -> tuple[int, ...]:
        return tuple(
            numbers[patient] for patient, has in zip(ids, with_lesion, strict=True) if has == wanted
        )

    return SiteResult(
        dice=of(True, lambda score: score.dice),
        patients=whose(True),
        false_positives=of(False, lambda score: score.predicted_pixels / size**2),
        other_patients=whose(False),
        lesions=sum(score.lesions for score in runs[0]),
        lesions_found=float(np.mean([sum(s.lesions_found for s in run) for run in runs])),
    )
