"""One simulated experiment: the federation, its comparison, and the report, in one folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flwr
import torch

from mamfed_client.site import Site, load_site
from mamfed_common import __version__
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.device import choose_device
from mamfed_common.metrics import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training import evaluate, load_network, predict
from mamfed_common.weights import SiteDescription
from mamfed_server.runs import RoundRecord, RunFolder
from mamfed_simulations.arms import (
    CENTRALISED,
    LOCAL,
    Arm,
    centralised_arm,
    describe_sites,
    federated_arm,
    local_arms,
    merge_local,
)
from mamfed_simulations.engine import Engine
from mamfed_simulations.federation import run_federation
from mamfed_simulations.progress import Progress
from mamfed_simulations.report import Case, RejectedRow, ReportData, write_report

CASES_PER_SITE = 3


@dataclass(frozen=True)
class Experiment:
    """What to simulate.

    Attributes:
        sites: The sites.
        plan: The plan.
        out: Run folder; an earlier run there is moved aside.
        compare: Train local-only and centralised arms too.
        engine: Where sites run.
        device: Where sites train.
        threads: CPU threads of each site; equal numbers give equal bits.
        title: Heading of the report.
        command: The command line, for the report.
    """

    sites: tuple[Site, ...]
    plan: TrainingPlan
    out: Path
    compare: bool = False
    engine: Engine = Engine.PROCESS
    device: str = "auto"
    threads: int = 1
    title: str = "mamfed simulation"
    command: str = ""


def simulate(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    """Run all arms, write ``summary.json`` and ``report.html``, and return the summary.

    Raises:
        RunError: An arm failed; what was reached stays in the run folder.
    """
    started = time.monotonic()
    arm = federated_arm(experiment.sites, experiment.plan, experiment.out)
    summary = _run(experiment, arm, progress)
    other_rounds: dict[str, Sequence[RoundRecord]] = {}
    if experiment.compare:
        other_rounds = _compare(experiment, descriptions, progress, summary)
    summary["seconds"] = round(time.monotonic() - started, 1)
    folder = RunFolder(experiment.out)
    folder.write_summary(summary)
    progress.say("drawing the report")
    report = ReportData(
        title=experiment.title,
        command=experiment.command,
        plan=experiment.plan,
        summary=summary,
        rounds=folder.rounds(),
        other_rounds=other_rounds,
        cases=choose_cases(experiment, folder.checkpoint_path("best")),
        rejected=rejected_rows(experiment.sites, experiment.plan),
        environment=environment(experiment),
        cases_chosen_by="best, median and worst Dice of each site",
    )
    write_report(experiment.out, report)
    return summary


def _compare(
    experiment: Experiment,
    descriptions: Mapping[str, SiteDescription],
    progress: Progress,
    summary: dict[str, Any],
) -> dict[str, Sequence[RoundRecord]]:
    """Run the other arms and add them to the summary; return their rounds by arm."""
    sites, plan, out = experiment.sites, experiment.plan, experiment.out
    arms, not_trained = local_arms(sites, descriptions, plan, out)
    arms.append(centralised_arm(sites, plan, out))
    summaries = {arm.name: _run(experiment, arm, progress) for arm in arms}
    summary["warnings"] += [
        f"{name}: {warning}" for name, s in summaries.items() for warning in s["warnings"]
    ]
    centralised = summaries.pop(CENTRALISED)
    by_site = {name.removeprefix(f"{LOCAL}-"): s for name, s in summaries.items()}
    summary["arms"][LOCAL] = merge_local(by_site, not_trained)
    summary["arms"][CENTRALISED] = centralised["arms"][CENTRALISED]
    return {arm.name: RunFolder(arm.job.folder).rounds() for arm in arms}


def choose_cases(experiment: Experiment, checkpoint: Path) -> list[Case]:
    """Return each site's best, median and worst held-out malignant image, for figure 2."""
    device = choose_device(experiment.device)
    plan = experiment.plan
    if not plan.finetuning.rounds:
        return []
    state, facts = load_checkpoint(checkpoint)
    plan = with_threshold(plan, facts.threshold)
    network = load_network(state, plan, device)
    cases = []
    for site in experiment.sites:
        data = load_site(site, plan)
        samples = data.samples(["malignant"], "test")
        rows = [image.case.row for cohort in data.cohorts for image in cohort.placed]
        vendors = {row.image: row.vendor or "unknown" for row in rows}
        scores = evaluate(state, samples, plan, device=device)
        for index in _best_median_worst(scores):
            sample = samples[index]
            cases.append(
                Case(
                    site=site.name,
                    image=sample.name,
                    vendor=vendors[sample.name],
                    dice=scores[index].dice,
                    sample=sample,
                    prediction=predict(network, [sample], plan, device)[0],
                )
            )
    return cases


def rejected_rows(sites: Sequence[Site], plan: TrainingPlan) -> list[RejectedRow]:
    """Return every row of every site that could not be used, and why."""
    return [
        RejectedRow(site.name, r.row_number, r.image, str(r.reason), r.detail)
        for site in sites
        for cohort in load_site(site, plan).cohorts
        for r in cohort.intake.rejected
    ]


def environment(experiment: Experiment) -> dict[str, str]:
    """Return what the run ran on, for the report."""
    return {
        "mamfed": __version__,
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "Flower": flwr.__version__,
        "engine": experiment.engine,
        "device": str(choose_device(experiment.device)),
        "threads a site": str(experiment.threads),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _run(experiment: Experiment, arm: Arm, progress: Progress) -> dict[str, Any]:
    """Run one arm behind a progress bar; return its summary."""
    steps = arm.steps(describe_sites(arm.sites, experiment.plan))
    on_step, on_round = progress.start(arm.name, arm.job.plan, steps)
    run_federation(
        arm.sites,
        replace(arm.job, on_round=on_round),
        engine=experiment.engine,
        device=experiment.device,
        threads=experiment.threads,
        on_step=on_step,
    )
    return RunFolder(arm.job.folder).read_summary()


def _best_median_worst(scores: Sequence[ImageScore]) -> list[int]:
    """Return up to three positions, from the highest Dice to the lowest."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i].dice)
    if len(order) <= CASES_PER_SITE:
        return order
    return [order[0], order[len(order) // 2], order[-1]]
