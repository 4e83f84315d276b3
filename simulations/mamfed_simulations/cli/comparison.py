"""``mamfed-simulate experiment federation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.options import (
    ArmThreads,
    Cache,
    Device,
    DryRun,
    Output,
    PlanFile,
    Seeds,
    Settings,
    SiteFolders,
    Size,
    Workers,
    chosen_plan,
    number_of_workers,
    print_json,
    site_folders,
    sites_in,
)

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan
    from mamfed_simulations.comparison.compare import ArmOutcome
    from mamfed_simulations.comparison.design import Comparison

ARM_LIST = "local,centralised,fedavg,personal,fedprox,fedbn,leave-one-out"


Out = Annotated[Path, typer.Option(help="Output folder. An unfinished comparison there resumes.")]
Arms = Annotated[
    str | None, typer.Option(help="Arms to compare, separated by commas.", show_default=ARM_LIST)
]
Folds = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=100,
        help="Cross-validate: test every patient once. Each fold trains with its own seed.",
        show_default="one split",
    ),
]
ProximalMu = Annotated[
    float, typer.Option(min=0, help="FedProx weight (mu) if the plan sets none.")
]


def federation(
    site: SiteFolders,
    out: Out,
    arms: Arms = None,
    plan: PlanFile = None,
    size: Size = None,
    settings: Settings = None,
    seeds: Seeds = 1,
    folds: Folds = None,
    mu: ProximalMu = 0.01,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: ArmThreads = None,
    workers: Workers = "auto",
    cache: Cache = None,
    output: Output = Format.TEXT,
) -> None:
    """Compare ways to train on several sites. Every arm is tested on every site's test patients.

    local: each site trains alone. centralised: all data pooled. fedavg, fedprox, fedbn:
    federations. personal: each site's own fine-tuned copy of the fedavg model, if the plan has
    personal steps. leave-one-out: the other sites train, and the site they never saw is tested.
    Failed arms are reported, and the exit code is 7; the other arms still run.

    Example: mamfed-simulate experiment federation --site a=data/a --site b=data/b --size 256
    --seeds 3 --out runs/federation
    """
    from mamfed_simulations.comparison.design import Comparison
    from mamfed_simulations.federation.hardware import choose_machine

    training_plan = chosen_plan(plan, size, None, settings)
    arm_names = _arms(arms, training_plan)
    comparison = Comparison(
        sites=sites_in(site_folders(site), cache),
        plan=training_plan,
        out=out,
        arms=arm_names,
        seeds=tuple(range(seeds)),
        proximal_mu=mu,
        machine=choose_machine(
            training_plan,
            arms=len(arm_names) * seeds * (folds or 1),
            device=device,
            threads=threads,
            workers=number_of_workers(workers),
        ),
        folds=folds,
    )
    _compare(comparison, output, dry_run=dry_run)


def _compare(comparison: Comparison, output: Format, *, dry_run: bool) -> None:
    """Check the comparison, print its data and trainings, and run it unless ``dry_run``."""
    from mamfed_common.runtime.files import private_directory
    from mamfed_common.runtime.lock import exclusive_lock
    from mamfed_simulations.comparison.compare import compare
    from mamfed_simulations.comparison.design import LOCK, check_place, kept_lines
    from mamfed_simulations.federation.readiness import check_machine
    from mamfed_simulations.reporting.interruption import kept_on_interrupt
    from mamfed_simulations.reporting.progress import Progress

    check_place(comparison)
    check_machine(comparison.machine)
    with kept_on_interrupt(lambda: kept_lines(comparison)):
        excluded = _print_planned_work(comparison)
        if dry_run:
            return
        private_directory(comparison.out)
        with exclusive_lock(comparison.out / LOCK, "this comparison"), Progress() as progress:
            outcomes = compare(comparison, progress)
    _report(comparison, outcomes, excluded, output)


def _report(
    comparison: Comparison,
    outcomes: Mapping[str, ArmOutcome],
    excluded: Sequence[str],
    output: Format,
) -> None:
    """Write and print the results.

    Raises:
        RunError: Some federations failed.
    """
    from mamfed_common.errors import RunError
    from mamfed_simulations.comparison.report import account_of, missing_lines
    from mamfed_simulations.comparison.results import results_of
    from mamfed_simulations.reporting.interruption import command_line
    from mamfed_simulations.reporting.pages import for_terminal

    account = account_of(comparison, outcomes, command_line(), excluded)
    results = results_of(comparison, outcomes, account.verdicts)
    account.write(comparison.out, results)
    console = terminal.console()
    for table in account.tables:
        console.print(for_terminal(table))
    for verdict in account.verdicts:
        console.print(verdict)
    terminal.print_lines([*excluded, *missing_lines(outcomes)])
    console.print(f"report: {comparison.out / 'report.html'}")
    print_json(output, results)
    if failed := [name for name, outcome in outcomes.items() if outcome.failed]:
        raise RunError(f"{', '.join(failed)}: some federations failed; see the report for reasons")


def _print_planned_work(comparison: Comparison) -> list[str]:
    """Check everything a comparison needs; print its data and its planned trainings.

    Returns:
        Lines that say which rows are rejected or excluded, and why.
    """
    from mamfed_common.metrics.row_account import reason_lines
    from mamfed_simulations.comparison.federations import arms_of, planned
    from mamfed_simulations.federation.fingerprints import check_fingerprints
    from mamfed_simulations.federation.readiness import training_lines
    from mamfed_simulations.reporting.tables import data_tables

    out = comparison.out
    first, *others = comparison.repeats
    descriptions = comparison.describe(first, progress=True)
    for repeat in others:  # report a site that some fold cannot test before any training starts
        comparison.describe(repeat)
    for table in data_tables(descriptions, comparison.plan_of(first)):
        terminal.console().print(table)
    excluded = reason_lines(descriptions, comparison.plan_of(first))
    made, _ = planned(comparison)
    held = check_fingerprints(out, arms_of(made), comparison.machine)
    terminal.print_lines([*excluded, *held.notes, *training_lines(arms_of(made))])
    return excluded


def _arms(text: str | None, plan: TrainingPlan) -> tuple[str, ...]:
    """Parse ``--arms``; the default is every arm for which the plan makes models."""
    from mamfed_common.errors import PlanError
    from mamfed_common.runtime.documents import did_you_mean
    from mamfed_simulations.comparison.design import ARMS, PERSONAL

    if text is None:
        return tuple(a for a in ARMS if a != PERSONAL or plan.makes_personal_models)
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in ARMS]:
        hint = did_you_mean(unknown[0], ARMS)
        raise typer.BadParameter(f"--arms {unknown[0]!r}: expected any of {ARM_LIST}{hint}")
    if PERSONAL in names and not plan.makes_personal_models:
        raise PlanError(
            f"--arms {PERSONAL}: the plan makes no personal models: personal.steps is "
            f"{plan.personal.steps} and finetuning.rounds is {plan.finetuning.rounds}; both must "
            "be above 0"
        )
    return names
