"""One simulated experiment: the federation, its comparison, and the report, in one folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mamfed_client.site import Site, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.device import choose_device, float32_instead
from mamfed_common.errors import MamfedError
from mamfed_common.files import check_outside, check_writable
from mamfed_common.intervals import patient_bootstrap
from mamfed_common.metrics import ImageScore
from mamfed_common.plan import TrainingPlan, with_threshold
from mamfed_common.training import evaluate, load_network, predict
from mamfed_common.weights import SiteDescription
from mamfed_server.report.data import (
    CaseNote,
    Interval,
    Notes,
    Promise,
    RejectedRow,
    environment,
    write_notes,
)
from mamfed_server.report.page import report_run
from mamfed_server.runs import RunFolder
from mamfed_simulations.arms import (
    CENTRALISED,
    FEDERATED,
    LOCAL,
    centralised_arm,
    federated_arm,
    local_arms,
    merge_local,
)
from mamfed_simulations.figure2 import Case, by_site, draw_figure2
from mamfed_simulations.progress import Progress
from mamfed_simulations.promises import measure_promises
from mamfed_simulations.site_models import as_at_site
from mamfed_simulations.workers import Machine, set_threads, train_arms

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
        machine: What to train with.
        title: Heading of the report.
        command: The command line, for the report.
    """

    sites: tuple[Site, ...]
    plan: TrainingPlan
    out: Path
    compare: bool = False
    machine: Machine = field(default_factory=Machine)
    title: str = "mamfed simulation"
    command: str = ""


def simulate(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    """Run all arms, write ``summary.json`` and ``report.html``, and return the summary.

    Raises:
        RunError: An arm failed; what was reached stays in the run folder.
        SetupError: Another run works in the folder.
        OutputError: The folder holds something else, or lies in a site's data.
    """
    check_place(experiment)
    with RunFolder(experiment.out).alone():
        return _simulate(experiment, descriptions, progress)


def check_place(experiment: Experiment) -> None:
    """Refuse a place for a run before its images are prepared.

    Raises:
        OutputError: It lies in a site's data, holds something else, or cannot be written.
    """
    out = experiment.out
    check_outside(out, [f for site in experiment.sites for _, f in site.cohorts])
    if not RunFolder(out).check_ours():
        check_writable(out)
    check_writable(Path(os.path.abspath(out)).parent)  # for the lock, and an earlier run's new name


def _simulate(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    folder = RunFolder(experiment.out)
    try:
        summary = _train(experiment, descriptions, progress)
    except MamfedError:
        if folder.holds_run():  # else it failed before it began, and left nothing behind
            write_notes(experiment.out, _notes(experiment, Measured()))
            report_run(experiment.out)
        raise
    summary["seconds"] = round(time.monotonic() - started, 1)
    folder.write_summary(summary)
    progress.say("drawing the report")
    set_threads(experiment.machine)
    measured = measure(experiment, folder.checkpoint_path("best"))
    figure2 = draw_figure2(measured.cases, measured.threshold) if measured.cases else None
    write_notes(experiment.out, _notes(experiment, measured), figure2)
    report_run(experiment.out)
    return summary


def _train(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    """Train all arms; return the federation's summary with the results of all."""
    sites, plan, out = experiment.sites, experiment.plan, experiment.out
    arms = [federated_arm(sites, plan, out)]
    not_trained: dict[str, str] = {}
    if experiment.compare:
        alone, not_trained = local_arms(sites, descriptions, plan, out)
        others = [*alone, centralised_arm(sites, descriptions, plan, out)]
        # The other arms' folders lie in this one's: it stands before any of them begins.
        RunFolder(out).create(plan)
        arms = [replace(arms[0], job=replace(arms[0].job, resume=True)), *others]
    trained = train_arms(arms, experiment.machine, progress)
    summaries = {arm.name: RunFolder(arm.job.folder).read_summary() for arm, _ in trained}
    summary = summaries.pop(FEDERATED)
    device = choose_device(experiment.machine.device)
    summary["warnings"] += filter(None, [float32_instead(device, plan.precision)])
    if not experiment.compare:
        return summary
    summary["warnings"] += [
        f"{name}: {warning}" for name, s in summaries.items() for warning in s["warnings"]
    ]
    centralised = summaries.pop(CENTRALISED)
    by_site = {name.removeprefix(f"{LOCAL}-"): s for name, s in summaries.items()}
    summary["arms"][LOCAL] = merge_local(by_site, not_trained)
    summary["arms"][CENTRALISED] = centralised["arms"][CENTRALISED]
    return summary


@dataclass(frozen=True)
class Measured:
    """What the chosen checkpoint makes of the held-out images with malignancy.

    Attributes:
        cases: Each site's best, median and worst, for figure 2.
        worst: The lowest Dice of all sites, the worst first.
        intervals: Of each site's mean Dice, over patients.
        promises: What each site gains by taking part.
        threshold: Probability from which a pixel was marked.
    """

    cases: Sequence[Case] = ()
    worst: Sequence[CaseNote] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    promises: Sequence[Promise] = ()
    threshold: float = 0.5


def _note(site: str, score: ImageScore, vendor: str | None) -> CaseNote:
    return CaseNote(site=site, image=score.image, vendor=vendor or "unknown", dice=score.dice)


def measure(experiment: Experiment, checkpoint: Path) -> Measured:
    """Score every site's held-out images with malignancy once more, image by image."""
    device, plan = choose_device(experiment.machine.device), experiment.plan
    if not plan.finetuning.rounds:
        return Measured()
    shared = load_checkpoint(checkpoint)
    plan = with_threshold(plan, shared.facts.threshold)
    cases: list[Case] = []
    notes: list[CaseNote] = []
    intervals = {}
    for site in experiment.sites:
        data = load_site(site, plan)
        state, _, painted_by = as_at_site(shared, experiment.out, site.name)
        network = load_network(state, plan, device)
        painter = None if painted_by is None else load_network(painted_by, plan, device)
        samples = data.samples(["malignant"], "test")
        rows = {i.case.row.image: i.case.row for c in data.cohorts for i in c.placed}
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
            found = patient_bootstrap(patients, np.array([score.dice for score in scores]))
            intervals[site.name] = Interval(low=found.low, high=found.high, patients=found.patients)
        notes += own
    worst = sorted(notes, key=lambda note: (note.dice, note.site, note.image))[:WORST_CASES]
    promises = measure_promises(experiment.sites, experiment.out, device)
    return Measured(by_site(cases), worst, intervals, promises, plan.evaluation.threshold)


def _notes(experiment: Experiment, measured: Measured) -> Notes:
    """Write down what the report tells beside the run's own files."""
    return Notes(
        title=experiment.title,
        command=experiment.command,
        environment={
            **environment(),
            "engine": experiment.machine.engine,
            "device": str(choose_device(experiment.machine.device)),
            "threads a site": str(experiment.machine.threads),
            "arms side by side": str(experiment.machine.workers),
        },
        rejected=tuple(rejected_rows(experiment.sites, experiment.plan)),
        cases=tuple(
            CaseNote(site=c.site, image=c.image, vendor=c.vendor, dice=c.dice)
            for c in measured.cases
        ),
        cases_chosen_by="best, median and worst Dice of each site",
        worst=tuple(measured.worst),
        intervals=dict(measured.intervals),
        promises=tuple(measured.promises),
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


def _best_median_worst(scores: Sequence[ImageScore]) -> list[int]:
    """Return up to three positions, from the highest Dice to the lowest."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i].dice)
    if len(order) <= CASES_PER_SITE:
        return order
    return [order[0], order[len(order) // 2], order[-1]]
