"""What a study is, and carrying it out: the same command again goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.progress
import torch

from mamfed_common.config import Config
from mamfed_common.errors import PlanError
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.output_checks import check_folder, check_outside
from mamfed_common.runtime.terminal import console
from mamfed_simulations.federation.readiness import check_nobody_works
from mamfed_simulations.study.data import StudyData
from mamfed_simulations.study.rows import Row
from mamfed_simulations.study.trials import StudyTraining, read_epochs, run_unit

DESIGN, LOCK = "study.json", "study.lock"
KEEP_SECONDS = 60.0
"""How much training a kill may cost."""


class Design(Config):
    """What decides a study's figures, kept as ``study.json``; rows and seeds may be added later.

    Attributes:
        kind: ``table1`` or ``peers``.
        plan: Each stage is one round of all its epochs; the seed is the units' own.
        folds: Cross-validation, or None for one split.
        data: SHA-256 over the prepared images and their division.
        threads: CPU threads: other numbers give other bits.
        device: The kind of device that trains; likewise.
        mamfed_version: The code that trains; studies of 0.1.0 do not say it.
    """

    kind: str
    plan: TrainingPlan
    folds: int | None
    data: str
    threads: int
    device: str = "cpu"
    mamfed_version: str = "0.1.0"


@dataclass(frozen=True)
class Study:
    """A study to carry out.

    Attributes:
        design: What it is.
        rows: What to train.
        seeds: The seed of each training of a row.
        data: What to train on.
        folder: Where everything goes.
        title: Heading of the report.
        command: The command line, for the report.
    """

    design: Design
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    data: StudyData
    folder: Path
    title: str
    command: str

    def units(self, row: Row | None = None) -> list[StudyTraining]:
        """Return the units, of one row or all, seed by seed: early results are comparable."""
        what = hashlib.sha256(self.design.model_dump_json().encode()).hexdigest()
        return [
            StudyTraining(
                chosen, number, fold, with_seed(self.design.plan, seed), self.folder, what
            )
            for seed in self.seeds
            for number, fold in enumerate(self.data.folds)
            for chosen in ([row] if row else self.rows)
        ]

    def lines(self) -> list[str]:
        """Say for people what is to be trained, on what, and what is left of it."""
        units = self.units()
        steps = sum(unit.steps(Stage.FINETUNING) for unit in units)
        folds = [
            f"fold {number}: " + ", ".join(f"{name} {n}" for name, n in fold.counts().items())
            for number, fold in enumerate(self.data.folds)
        ]
        return [
            *self.data.left_out,
            *folds,
            f"{len(units)} trainings of stage 2 ({len(self.rows)} rows, {len(self.seeds)} seeds, "
            f"{len(folds)} folds; {steps:,} steps), {sum(unit.done for unit in units)} done before",
        ]


def one_round(
    plan: TrainingPlan, epochs: int | None, pretraining_epochs: int | None
) -> TrainingPlan:
    """Return a plan whose stages are one round each, of the given epochs or all of the plan's.

    Raises:
        PlanError: A stage counts steps, and no number of epochs is given for it.
    """
    asked = {
        Stage.FINETUNING: (epochs, "--epochs"),
        Stage.PRETRAINING: (pretraining_epochs, "--pretraining-epochs"),
    }
    stages = {}
    for stage, (wanted, option) in asked.items():
        old = plan.stage(stage)
        if wanted is None and old.local_steps is not None:
            raise PlanError(
                f"{stage}.local_steps is {old.local_steps}, and a study is scored after each "
                f"epoch: give {option}"
            )
        count = wanted or old.rounds * (old.local_epochs or 1) or 1
        update = {"rounds": 1, "local_epochs": count, "local_steps": None}
        stages[stage.value] = old.model_copy(update=update)
    return plan.model_copy(update=stages)


def with_seed(plan: TrainingPlan, seed: int) -> TrainingPlan:
    """Return a plan with another seed; the patients stay divided as they are."""
    return plan.model_copy(update={"seed": seed})


def carry_out(study: Study, device: torch.device) -> None:
    """Train every unit that is not done yet, behind a progress bar.

    Raises:
        OutputError: The folder holds a study of another design; what differs is named.
        SetupError: Another process works in the folder.
    """
    private_directory(study.folder)
    with exclusive_lock(study.folder / LOCK, "this study"):
        check_design(study.folder, study.design)
        if not (study.folder / DESIGN).exists():
            write_atomic(study.folder / DESIGN, study.design.model_dump_json(indent=2))
        write_atomic(study.folder / "plan.yaml", study.design.plan.to_yaml())
        open_units = [unit for unit in study.units() if not unit.done]
        with _progress() as display:
            for unit, on_step in _told(display, study, open_units):
                run_unit(unit, device, on_step, KEEP_SECONDS)


def check_place(folder: Path, data: Sequence[Path]) -> None:
    """Refuse a place for a study before its images are prepared.

    Raises:
        OutputError: It lies in the data, holds something else, or cannot be written.
        SetupError: Another process works in it.
    """
    check_outside(folder, data)
    check_folder(folder, lambda out: any((out / n).exists() for n in (DESIGN, LOCK)), "study")
    check_nobody_works(folder / LOCK, folder, "this study")


def check_needs(rows: Sequence[Row], plan: TrainingPlan) -> None:
    """Check that every row's network can be built.

    Raises:
        MamfedError: A row's package is not installed.
    """
    for row in rows:
        row.build(plan)


def check_design(folder: Path, design: Design) -> None:
    """Refuse a folder that holds a study of another design; one without a study will do.

    Raises:
        OutputError: It does; what differs is named.
    """
    path = folder / DESIGN
    if not path.exists():
        return
    before = read_json(Design, path).model_dump(mode="json")
    question = Fingerprint.of(**design.model_dump(mode="json"))
    advice = "choose another --out, or the same data and options"
    question.check(before, f"{path}: holds another study", advice)


def kept_lines(study: Study) -> list[str]:
    """Say what an interrupted study has left."""
    units = study.units()
    done = sum(unit.done for unit in units)
    epochs = sum(len(read_epochs(unit.path)) for unit in units)
    return [
        f"kept in {study.folder}: {done} of {len(units)} trainings and {epochs} epochs of stage 2 "
        f"in all; at most {KEEP_SECONDS:.0f} seconds of training are done again"
    ]


def _told(
    display: rich.progress.Progress, study: Study, units: Sequence[StudyTraining]
) -> Iterator[tuple[StudyTraining, Callable[[], None]]]:
    """Yield each unit with what to call after a step; the bar is over all units' stage 2."""
    total = sum(unit.steps(Stage.FINETUNING) for unit in study.units())
    done = total - sum(unit.steps(Stage.FINETUNING) for unit in units)
    everything = display.add_task("all units", total=total, completed=done)
    for unit in units:
        both = unit.steps(Stage.FINETUNING)
        both += unit.steps(Stage.PRETRAINING) if unit.row.pretrained else 0
        task = display.add_task(unit.name, total=both)

        def on_step(task: rich.progress.TaskID = task) -> None:
            display.advance(task)

        yield unit, on_step
        display.remove_task(task)
        display.advance(everything, unit.steps(Stage.FINETUNING))


def _progress() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console(),
    )
