"""One simulated experiment: the federation, its comparison, and the report, in one folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mamfed_client.site import Site, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.device import choose_device
from mamfed_common.errors import MamfedError
from mamfed_common.intervals import patient_bootstrap
from mamfed_common.metrics import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training import evaluate, load_network, predict
from mamfed_common.weights import SiteDescription
from mamfed_server.report.data import (
    CaseNote,
    Interval,
    Notes,
    RejectedRow,
    environment,
    write_notes,
)
from mamfed_server.report.page import report_run
from mamfed_server.runs import RunFolder
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
from mamfed_simulations.figure2 import Case, by_site, draw_figure2
from mamfed_simulations.progress import Progress

CASES_PER_SITE = 3
WORST_CASES = 10


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
        activation_checkpointing: Whether sites train in less memory, at the cost of time.
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
    activation_checkpointing: bool = False
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
    folder = RunFolder(experiment.out)
    try:
        summary = _run(experiment, arm, progress)
        if experiment.compare:
            _compare(experiment, descriptions, progress, summary)
    except MamfedError:
        if folder.holds_run():  # else it failed before it began, and left nothing behind
            write_notes(experiment.out, _notes(experiment, Measured()))
            report_run(experiment.out)
        raise
    summary["seconds"] = round(time.monotonic() - started, 1)
    folder.write_summary(summary)
    progress.say("drawing the report")
    measured = measure(experiment, folder.checkpoint_path("best"))
    figure2 = draw_figure2(measured.cases, measured.threshold) if measured.cases else None
    write_notes(experiment.out, _notes(experiment, measured), figure2)
    report_run(experiment.out)
    return summary


def _compare(
    experiment: Experiment,
    descriptions: Mapping[str, SiteDescription],
    progress: Progress,
    summary: dict[str, Any],
) -> None:
    """Run the other arms and add them to the summary."""
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


@dataclass(frozen=True)
class Measured:
    """What the chosen checkpoint makes of the held-out images with malignancy.

    Attributes:
        cases: Each site's best, median and worst, for figure 2.
        worst: The lowest Dice of all sites, the worst first.
        intervals: Of each site's mean Dice, over patients.
        threshold: Probability from which a pixel was marked.
    """

    cases: Sequence[Case] = ()
    worst: Sequence[CaseNote] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    threshold: float = 0.5


def measure(experiment: Experiment, checkpoint: Path) -> Measured:
    """Score every site's held-out images with malignancy once more, image by image."""
    device, plan = choose_device(experiment.device), experiment.plan
    if not plan.finetuning.rounds:
        return Measured()
    state, facts, _ = load_checkpoint(checkpoint)
    plan = with_threshold(plan, facts.threshold)
    network = load_network(state, plan, device)
    cases: list[Case] = []
    notes: list[CaseNote] = []
    intervals = {}
    for site in experiment.sites:
        data = load_site(site, plan)
        samples = data.samples(["malignant"], "test")
        rows = {i.case.row.image: i.case.row for c in data.cohorts for i in c.placed}
        scores = evaluate(state, samples, plan, device=device)
        own = [
            CaseNote(
                site=site.name,
                image=score.image,
                vendor=rows[score.image].vendor or "unknown",
                dice=score.dice,
            )
            for score in scores
        ]
        for index in _best_median_worst(scores):
            (prediction,) = predict(network, [samples[index]], plan, device)
            note = own[index]
            cases.append(
                Case(note.site, note.image, note.vendor, note.dice, samples[index], prediction)
            )
        if scores:
            patients = [rows[score.image].patient_id for score in scores]
            found = patient_bootstrap(patients, np.array([score.dice for score in scores]))
            intervals[site.name] = Interval(low=found.low, high=found.high, patients=found.patients)
        notes += own
    worst = sorted(notes, key=lambda note: (note.dice, note.site, note.image))[:WORST_CASES]
    return Measured(by_site(cases), worst, intervals, plan.evaluation.threshold)


def _notes(experiment: Experiment, measured: Measured) -> Notes:
    """Write down what the report tells beside the run's own files."""
    return Notes(
        title=experiment.title,
        command=experiment.command,
        environment={
            **environment(),
            "engine": experiment.engine,
            "device": str(choose_device(experiment.device)),
            "threads a site": str(experiment.threads),
        },
        rejected=tuple(rejected_rows(experiment.sites, experiment.plan)),
        cases=tuple(
            CaseNote(site=c.site, image=c.image, vendor=c.vendor, dice=c.dice)
            for c in measured.cases
        ),
        cases_chosen_by="best, median and worst Dice of each site",
        worst=tuple(measured.worst),
        intervals=dict(measured.intervals),
    )


def rejected_rows(sites: Sequence[Site], plan: TrainingPlan) -> list[RejectedRow]:
    """Return every row of every site that could not be used, and why."""
    return [
        RejectedRow(
            site=site.name,
            row=r.row_number,
            image=r.image,
            reason=str(r.reason),
            detail=r.detail,
        )
        for site in sites
        for cohort in load_site(site, plan).cohorts
        for r in cohort.intake.rejected
    ]


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
        activation_checkpointing=experiment.activation_checkpointing,
        on_step=on_step,
    )
    return RunFolder(arm.job.folder).read_summary()


def _best_median_worst(scores: Sequence[ImageScore]) -> list[int]:
    """Return up to three positions, from the highest Dice to the lowest."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i].dice)
    if len(order) <= CASES_PER_SITE:
        return order
    return [order[0], order[len(order) // 2], order[-1]]
