"""Run one simulated experiment: the federation, its comparison and the report, in one folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.errors import MamfedError
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.output_checks import check_outside, check_writable
from mamfed_common.training.device import choose_device, float32_instead
from mamfed_server.report.data import (
    ARMS,
    CaseNote,
    RejectedRow,
    RunNotes,
    environment,
    write_notes,
)
from mamfed_server.report.page import report_run
from mamfed_server.run.participants import check_stages
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.arm_pool import train_arms
from mamfed_simulations.federation.arms import (
    CENTRALISED,
    FEDERATED,
    LOCAL,
    Arm,
    centralised_arm,
    federated_arm,
    local_arms,
    merge_local,
)
from mamfed_simulations.federation.fingerprints import check_fingerprints, start_with_fingerprints
from mamfed_simulations.federation.hardware import ArmHardware, set_threads
from mamfed_simulations.federation.held_out import HeldOutResult, measure
from mamfed_simulations.federation.readiness import check_nobody_works
from mamfed_simulations.reporting.figure2 import draw_figure2
from mamfed_simulations.reporting.progress import Progress


@dataclass(frozen=True)
class Experiment:
    """A simulation to run.

    Attributes:
        sites: The sites.
        plan: The training plan.
        out: Run folder; an earlier run there is moved aside.
        compare: Whether to train local-only and centralised arms too.
        machine: Engine, device, threads and workers.
        title: Heading of the report.
        command: The command line, for the report.
        resume: Whether to resume a run in ``out`` that has the same inputs.
    """

    sites: tuple[Site, ...]
    plan: TrainingPlan
    out: Path
    compare: bool = False
    machine: ArmHardware = field(default_factory=ArmHardware)
    title: str = "mamfed simulation"
    command: str = ""
    resume: bool = False


def simulate(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    """Run all arms, write ``summary.json`` and ``report.html``, and return the summary.

    Raises:
        RunError: An arm failed; the results so far stay in the run folder.
        SetupError: Another run uses the folder.
        OutputError: The folder holds something else, lies in a site's data, or the run to resume
            had other data, options or code.
        PlanError: The run to resume had another plan.
    """
    check_place(experiment)
    with RunFolder(experiment.out).alone():
        return _simulate(experiment, descriptions, progress)


def check_place(experiment: Experiment) -> None:
    """Check that the run folder can be used, before any image is prepared.

    Raises:
        OutputError: It lies in a site's data, holds something else, or cannot be written.
        SetupError: Another run uses it.
    """
    out, folder = experiment.out, RunFolder(experiment.out)
    check_outside(out, [f for site in experiment.sites for _, f in site.cohorts])
    is_there = folder.check_ours() if experiment.resume else folder.check_movable()
    if not is_there:
        check_writable(out)
    check_writable(Path(os.path.abspath(out)).parent)  # holds the lock and renamed earlier runs
    check_nobody_works(folder.lock(), out, "another run")


def _simulate(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription], progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    folder = RunFolder(experiment.out)
    check_stages(experiment.plan, descriptions)  # fail before the folder is created
    arms, not_trained = arms_of(experiment, descriptions)
    resumed = _open(experiment, arms, progress)
    try:
        summary = _train(experiment, arms, not_trained, progress)
    except MamfedError:
        if folder.holds_run():  # otherwise it failed before the run started
            write_notes(experiment.out, _notes(experiment, HeldOutResult()))
            report_run(experiment.out)
        raise
    if not resumed:  # the summary of a resumed run already adds up all its processes
        summary["seconds"] = round(time.monotonic() - started, 1)
    folder.write_summary(summary)
    progress.say("drawing the report")
    set_threads(experiment.machine)
    measured = measure(experiment.sites, experiment.plan, experiment.out, experiment.machine.device)
    figure2 = draw_figure2(measured.cases, measured.threshold) if measured.cases else None
    write_notes(experiment.out, _notes(experiment, measured), figure2)
    report_run(experiment.out)
    return summary


def _open(experiment: Experiment, arms: Sequence[Arm], progress: Progress) -> bool:
    """Create the run folder, or check that its run may resume; return whether it resumes.

    The other arms' folders lie inside the run folder, so it must exist before they start.
    """
    out, folder = experiment.out, RunFolder(experiment.out)
    resumed = experiment.resume and folder.holds_run()
    if resumed:
        recorded = check_fingerprints(out, arms, experiment.machine)
    else:
        folder.create(experiment.plan)
        recorded = start_with_fingerprints(out, arms, experiment.machine)
    recorded.write(out)
    for note in recorded.notes:
        progress.say(note)
    return resumed


def _train(
    experiment: Experiment,
    arms: Sequence[Arm],
    not_trained: dict[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Train all arms; return the federation's summary, extended by the results of all arms."""
    plan = experiment.plan
    trained = train_arms(arms, experiment.machine, progress)
    summaries = {arm.name: RunFolder(arm.job.folder).read_summary() for arm, _ in trained}
    summary = summaries.pop(FEDERATED)
    device = choose_device(experiment.machine.device)
    warnings = filter(None, [*summary["warnings"], float32_instead(device, plan.precision)])
    summary["warnings"] = list(dict.fromkeys(warnings))  # a finished run already has the warning
    if not experiment.compare:
        return summary
    others = [f"{name}: {warning}" for name, s in summaries.items() for warning in s["warnings"]]
    summary["warnings"] = list(dict.fromkeys([*summary["warnings"], *others]))
    centralised = summaries.pop(CENTRALISED)
    by_site = {name.removeprefix(f"{LOCAL}-"): s for name, s in summaries.items()}
    summary["arms"][LOCAL] = merge_local(by_site, not_trained)
    summary["arms"][CENTRALISED] = centralised["arms"][CENTRALISED]
    return summary


def arms_of(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription]
) -> tuple[list[Arm], dict[str, str]]:
    """Return the arms to train, the federation first, and why a site has no local-only arm."""
    sites, plan, out = experiment.sites, experiment.plan, experiment.out
    arms, not_trained = [federated_arm(sites, plan, out)], dict[str, str]()
    if experiment.compare:
        alone, not_trained = local_arms(sites, descriptions, plan, out)
        arms += [*alone, centralised_arm(sites, descriptions, plan, out)]
    return [replace(arm, job=replace(arm.job, resume=True)) for arm in arms], not_trained


def check_resumed(experiment: Experiment, arms: Sequence[Arm]) -> None:
    """Check that a run to resume has the same inputs.

    Raises:
        OutputError: It had other data, options or code; the message names the differences.
        PlanError: It had another plan.
    """
    if experiment.resume:
        check_fingerprints(experiment.out, arms, experiment.machine)


def kept_lines(experiment: Experiment) -> list[str]:
    """Describe what an interrupted run has saved."""
    folder = RunFolder(experiment.out)
    if not folder.holds_run():
        return ["kept: the images prepared so far; no round had started"]
    folders = [folder, *(RunFolder(arm) for arm in sorted((experiment.out / ARMS).glob("*")))]
    started = [arm for arm in folders if arm.holds_run()]
    rounds = sum(len(arm.rounds()) for arm in started)
    finished = sum(arm.is_finished() for arm in started)
    arms = f", {finished} of {len(started)} started arms finished" if experiment.compare else ""
    total = f" of {experiment.plan.rounds}" if not experiment.compare else ""
    return [
        f"kept in {experiment.out}: {rounds}{total} rounds{arms}; report.html is not written yet"
    ]


def _notes(experiment: Experiment, measured: HeldOutResult) -> RunNotes:
    """Return the notes that the report shows in addition to the run's own files."""
    return RunNotes(
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
    """Return every rejected row of every site, with the reason."""
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
