"""``mamfed-simulate experiment``: the paper's table 1 and peer networks on a user's own data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common import __version__
from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.options import (
    Cache,
    Device,
    DryRun,
    Output,
    PlanFile,
    Seeds,
    Settings,
    Size,
    Threads,
    chosen_plan,
    print_json,
)

if TYPE_CHECKING:
    import torch

    from mamfed_common.plan import TrainingPlan
    from mamfed_simulations.study.data import StudyData
    from mamfed_simulations.study.design import Study
    from mamfed_simulations.study.rows import Row

DEFAULT_EPOCHS = 20

app = typer.Typer(
    no_args_is_help=True,
    help="Compare ways to train under one budget, with confidence intervals. "
    "Run the same command again to resume.",
)

Data = Annotated[Path, typer.Option(help="Data set with annotated malignant cases.")]
Pretraining = Annotated[
    list[Path] | None,
    typer.Option(help="Extra data set whose benign images all serve pretraining; repeatable."),
]
Out = Annotated[Path, typer.Option(help="Output folder. An unfinished study there resumes.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs of stage 2.",
        show_default="the plan's rounds x epochs; 20 without --plan",
    ),
]
PretrainingEpochs = Annotated[
    int | None,
    typer.Option(min=1, help="Epochs of stage 1.", show_default="the plan's rounds x epochs"),
]
Folds = Annotated[
    int | None,
    typer.Option(min=2, help="Cross-validate: test every patient once.", show_default="one split"),
]
Rows = Annotated[
    str | None, typer.Option(help="Rows to train, separated by commas.", show_default="all")
]

TABLE1_HELP = """Train and compare the four rows of the paper's table 1, and one more.

Supervised or discriminative, pretrained or from scratch, under one budget. The extra row is
supervised and also sees benign images, with an empty mask: it isolates what the subtraction adds.
An INbreast folder with --size 1536 gives the paper's protocol: 80 % of the patients train, 20 %
test; masses and calcifications together; BI-RADS above 3 is malignant, 1 and 2 serve pretraining.
The plan's validation_fraction of the patients chooses the epoch.

Example: mamfed-simulate experiment table1 --data INbreast --size 1536 --out runs/table1
"""

PEERS_HELP = """Compare mamfed with common networks on the same data, steps and evaluation.

Trains MONAI's BasicUNet, smp.Unet(resnet34) and nnU-Net's PlainConvUNet from random weights with
Dice and cross-entropy, and mamfed's own recipe. Needs the optional packages: mamfed[peers].

Example: mamfed-simulate experiment peers --data INbreast --size 512 --out runs/peers
"""


def _command(kind: str, help_text: str) -> Callable[..., None]:
    """Return the command of one kind of study; all kinds take the same options."""

    def command(
        data: Data,
        out: Out,
        pretraining_data: Pretraining = None,
        plan: PlanFile = None,
        size: Size = None,
        settings: Settings = None,
        epochs: Epochs = None,
        pretraining_epochs: PretrainingEpochs = None,
        seeds: Seeds = 1,
        folds: Folds = None,
        rows: Rows = None,
        dry_run: DryRun = False,
        device: Device = "auto",
        threads: Threads = None,
        cache: Cache = None,
        output: Output = Format.TEXT,
    ) -> None:
        from mamfed_common.training.device import choose_device
        from mamfed_simulations.reporting.interruption import command_line
        from mamfed_simulations.study import design as studies

        chosen_device = choose_device(device)
        study_plan = _study_plan(
            chosen_plan(plan, size, None, settings),
            epochs,
            pretraining_epochs,
            keep_steps=plan is not None,
        )
        chosen_rows = _rows(kind, rows)
        others = pretraining_data or []
        studies.check_place(out, [data, *others])
        studies.check_needs(chosen_rows, study_plan)
        prepared = _prepared(data, others, study_plan, folds, cache)
        study = studies.Study(
            design=studies.Design(
                kind=kind,
                plan=study_plan,
                folds=folds,
                data=prepared.sha256,
                threads=threads or os.cpu_count() or 1,
                device=chosen_device.type,
                mamfed_version=__version__,
            ),
            rows=chosen_rows,
            seeds=tuple(range(seeds)),
            data=prepared,
            folder=out,
            title=f"mamfed {kind}: {data.name} at {study_plan.image_size} x "
            f"{study_plan.image_size}",
            command=command_line(),
        )
        studies.check_design(out, study.design)
        terminal.print_lines(study.lines())
        if not dry_run:
            _carry_out(study, chosen_device, output)

    command.__doc__ = help_text
    return command


def _study_plan(
    plan: TrainingPlan, epochs: int | None, pretraining_epochs: int | None, *, keep_steps: bool
) -> TrainingPlan:
    """Return the plan of a study: one round per stage.

    The default plan's local steps suit federations. A study trains ``DEFAULT_EPOCHS`` instead,
    unless the plan is the user's own (``keep_steps``) or sets other steps.
    """
    from mamfed_common.plan import TrainingPlan
    from mamfed_simulations.study.design import one_round

    default_steps = TrainingPlan().finetuning.local_steps
    if epochs is None and not keep_steps and plan.finetuning.local_steps == default_steps:
        epochs = DEFAULT_EPOCHS
    return one_round(plan, epochs, pretraining_epochs)


def _prepared(
    data: Path, others: list[Path], plan: TrainingPlan, folds: int | None, cache: Path | None
) -> StudyData:
    from mamfed_client.preparation.sample_store import default_cache_dir
    from mamfed_simulations.reporting.interruption import kept_on_interrupt
    from mamfed_simulations.study.data import load_study_data

    with kept_on_interrupt(lambda: ["kept: the images prepared so far"]):
        return load_study_data(data, others, plan, folds, cache or default_cache_dir())


def _carry_out(study: Study, device: torch.device, output: Format) -> None:
    """Train what is unfinished, then write and print the results."""
    import torch

    from mamfed_simulations.reporting.interruption import kept_on_interrupt
    from mamfed_simulations.reporting.pages import for_terminal
    from mamfed_simulations.study.design import carry_out, kept_lines
    from mamfed_simulations.study.report import write_report

    torch.set_num_threads(study.design.threads)
    with kept_on_interrupt(lambda: kept_lines(study)):
        carry_out(study, device)
    account, results = write_report(study, device)
    for table in account.tables:
        terminal.console().print(for_terminal(table))
    terminal.print_lines(study.data.left_out)
    terminal.console().print(f"report: {study.folder / 'report.html'}")
    print_json(output, results)


def _rows(kind: str, names: str | None) -> tuple[Row, ...]:
    from mamfed_common.runtime.documents import did_you_mean
    from mamfed_simulations.study.rows import PEER_ROWS, TABLE1

    known = {row.name: row for row in (TABLE1 if kind == "table1" else PEER_ROWS)}
    requested = list(known) if names is None else names.split(",")
    if unknown := [name for name in requested if name not in known]:
        hint = did_you_mean(unknown[0], list(known))
        expected = f"expected any of {', '.join(known)}"
        raise typer.BadParameter(f"--rows {unknown[0]!r}: {expected}{hint}")
    return tuple(known[name] for name in dict.fromkeys(requested))


app.command("table1")(_command("table1", TABLE1_HELP))
app.command("peers")(_command("peers", PEERS_HELP))
