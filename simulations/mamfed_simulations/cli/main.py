"""``mamfed-simulate``: simulate a multi-vendor federation on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.comparison import federation
from mamfed_simulations.cli.options import (
    ArmThreads,
    Cache,
    Device,
    DryRun,
    Lighter,
    Output,
    PlanFile,
    Resume,
    Settings,
    SiteFolders,
    Size,
    Threads,
    Workers,
    chosen_plan,
    number_of_workers,
    print_json,
    site_folders,
    sites_in,
)
from mamfed_simulations.cli.partition import partition
from mamfed_simulations.cli.playground import playground
from mamfed_simulations.cli.side_by_side import compare
from mamfed_simulations.cli.study import app as study_app
from mamfed_simulations.federation.engine import Engine

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan
    from mamfed_common.protocol.tasks import SiteDescription
    from mamfed_simulations.federation.experiment import Experiment
    from mamfed_simulations.federation.hardware import ArmHardware

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Simulate a federation of hospitals on this machine, with phantoms or your own data.",
)
study_app.command("federation")(federation)
app.command("partition")(partition)
app.command("compare")(compare)
app.command("playground")(playground)
app.add_typer(study_app, name="experiment")


Out = Annotated[
    Path, typer.Option(help="Run folder. An earlier run there is renamed NAME.1, NAME.2, ...")
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="process: one site at a time, in this process. ray: Flower's own engine."),
]


@app.callback()
def common(version: Annotated[bool, terminal.VERSION_OPTION] = False) -> None:
    """Handle the options that come before a subcommand."""


@app.command()
def plan(
    size: Size = None,
    settings: Settings = None,
    demo: Annotated[bool, typer.Option("--demo", help="Print the demo's plan instead.")] = False,
) -> None:
    """Print the default training plan as YAML. Save it, edit it and pass it to run --plan.

    Example: mamfed-simulate plan --size 256 --set finetuning.rounds=20 > plan.yaml
    """
    from mamfed_common.plan import TrainingPlan
    from mamfed_common.plan.overrides import with_overrides

    chosen = TrainingPlan()
    if demo:
        from mamfed_simulations.federation.demo import demo_plan

        chosen = demo_plan()
    if size is not None:
        chosen = chosen.changed("--size", image_size=size)
    chosen = with_overrides(chosen, settings or ())
    typer.echo(chosen.to_yaml(), nl=False)


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of phantoms and training.")] = 0,
    settings: Settings = None,
    resume: Resume = False,
    engine: EngineOption = Engine.PROCESS,
    device: Device = "auto",
    threads: ArmThreads = None,
    workers: Workers = "auto",
    cache: Cache = None,
    output: Output = Format.TEXT,
) -> None:
    """Train three phantom hospitals with different scanners and write report.html.

    Compares the federation with each hospital alone and with all data pooled. Takes minutes on
    two cores.
    """
    from mamfed_common.plan.overrides import with_overrides
    from mamfed_server.run_folder.folder import RunFolder
    from mamfed_simulations.federation.demo import SITES, demo_phantoms, demo_plan, draw_phantoms
    from mamfed_simulations.federation.hardware import choose_machine
    from mamfed_simulations.federation.readiness import check_machine

    chosen = with_overrides(demo_plan(seed), settings or ())
    machine = choose_machine(
        chosen,
        arms=len(SITES) + 2,
        engine=engine,
        device=device,
        threads=threads,
        workers=number_of_workers(workers),
    )
    check_machine(machine)
    RunFolder(out).check_ours()
    phantoms = demo_phantoms(out)
    terminal.console().print(f"drawing phantoms in {phantoms}")
    with draw_phantoms(phantoms, seed) as folders:
        experiment = _experiment(folders, chosen, out, machine, cache, compare=True)
        _simulate(replace(experiment, resume=resume), output, dry_run=False)


@app.command()
def run(
    site: SiteFolders,
    out: Out,
    plan: PlanFile = None,
    size: Size = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the plan's seed.")] = None,
    settings: Settings = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    engine: EngineOption = Engine.PROCESS,
    device: Device = "auto",
    threads: Threads = None,
    activation_checkpointing: Lighter = False,
    cache: Cache = None,
    output: Output = Format.TEXT,
) -> None:
    """Run a two-stage federation on your own folders of mammograms.

    Each folder holds labels.csv, images and masks (docs/data.md). Sites with benign cases take
    part in stage 1, sites with annotated malignant cases in stage 2. To compare the federation
    with other ways to train, use mamfed-simulate experiment federation.

    Example: mamfed-simulate run --site a=data/a --site b=data/b --size 256 --out runs/first
    """
    from mamfed_simulations.federation.hardware import choose_machine
    from mamfed_simulations.federation.readiness import check_machine

    chosen = chosen_plan(plan, size, seed, settings)
    folders = site_folders(site)
    machine = choose_machine(chosen, arms=1, engine=engine, device=device, threads=threads)
    machine = replace(machine, activation_checkpointing=activation_checkpointing)
    check_machine(machine)
    experiment = _experiment(folders, chosen, out, machine, cache, compare=False)
    _simulate(replace(experiment, resume=resume), output, dry_run=dry_run)


def main() -> None:
    """Run ``mamfed-simulate``."""
    terminal.run(app, "simulations")


def _experiment(
    folders: dict[str, Path],
    chosen: TrainingPlan,
    out: Path,
    machine: ArmHardware,
    cache: Path | None,
    *,
    compare: bool,
) -> Experiment:
    from mamfed_simulations.federation.experiment import Experiment
    from mamfed_simulations.reporting.interruption import command_line

    return Experiment(
        sites=sites_in(folders, cache),
        plan=chosen,
        out=out,
        compare=compare,
        machine=machine,
        title="mamfed: " + ", ".join(sorted(folders)),
        command=command_line(),
    )


def _simulate(experiment: Experiment, output: Format, *, dry_run: bool) -> None:
    """Check the experiment, print its data, and run it unless ``dry_run``."""
    from mamfed_common.metrics.row_account import reason_lines
    from mamfed_simulations.federation.arms import describe_sites
    from mamfed_simulations.federation.experiment import check_place, kept_lines, simulate
    from mamfed_simulations.reporting.interruption import kept_on_interrupt
    from mamfed_simulations.reporting.progress import Progress
    from mamfed_simulations.reporting.tables import data_tables

    check_place(experiment)
    with kept_on_interrupt(lambda: kept_lines(experiment), option="--resume"):
        descriptions = describe_sites(experiment.sites, experiment.plan, progress=True)
        for table in data_tables(descriptions, experiment.plan):
            terminal.console().print(table)
        excluded = reason_lines(descriptions, experiment.plan)
        terminal.print_lines(excluded)
        _print_planned_work(experiment, descriptions)
        if dry_run:
            return
        with Progress() as progress:
            summary = simulate(experiment, descriptions, progress)
    _print_results(experiment, summary, excluded)
    print_json(output, summary)


def _print_planned_work(
    experiment: Experiment, descriptions: Mapping[str, SiteDescription]
) -> None:
    """Check that every stage has patients and a resumed run fits; print the trainings."""
    from mamfed_server.run.participants import check_stages
    from mamfed_simulations.federation.experiment import arms_of, check_resumed
    from mamfed_simulations.federation.readiness import begin_line, training_lines

    check_stages(experiment.plan, descriptions)
    arms, _ = arms_of(experiment, descriptions)
    check_resumed(experiment, arms)
    begin = begin_line(experiment.out, resume=experiment.resume)
    terminal.print_lines([*filter(None, [begin]), *training_lines(arms)])


def _print_results(
    experiment: Experiment, summary: Mapping[str, Any], excluded: Sequence[str]
) -> None:
    from mamfed_server.report.page import verdicts_of
    from mamfed_simulations.reporting.tables import result_table

    console = terminal.console()
    console.print(result_table(summary))
    terminal.print_lines([*verdicts_of(experiment.out), *excluded])
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", style="yellow")
    report = experiment.out / "report.html"
    console.print(f"report: {report}\ncheckpoint: {summary['checkpoint']}")
