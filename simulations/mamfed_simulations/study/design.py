"""Define a study and carry it out; the same command resumes it where it stopped."""

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
"""Interval between saves: the most training time that a kill may lose."""


class Design(Config):
    """The inputs that determine a study's results, saved as ``study.json``.

    Rows and seeds are not part of it and may be added later.

    Attributes:
        kind: ``table1`` or ``peers``.
        plan: Each stage is one round of all its epochs; each unit sets its own seed.
        folds: Number of cross-validation folds, or None for one split.
        data: SHA-256 over the prepared images and their split.
        threads: CPU threads; other numbers change the results slightly.
        device: Type of the training device; likewise.
        mamfed_version: Version of the code; studies of 0.1.0 do not record it.
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
        design: The inputs that determine its results.
        rows: The rows to train.
        seeds: The seeds with which each row is trained.
        data: The training and test data.
        folder: The output folder.
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
        """Return the units of one row or of all, ordered by seed: early results are comparable."""
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
        """Describe the planned trainings, their data, and how many are already done."""
        units = self.units()
        steps = sum(unit.steps(Stage.FINETUNING) for unit in units)
        done = sum(unit.done for unit in units)
        folds = [
            f"fold {number}: " + ", ".join(f"{name} {n}" for name, n in fold.counts().items())
            for number, fold in enumerate(self.data.folds)
        ]
        return [
            *self.data.left_out,
            *folds,
            f"{len(units)} trainings of stage 2 ({len(self.rows)} rows, {len(self.seeds)} seeds, "
            f"{len(folds)} folds; {steps:,} steps), {done} already done",
        ]


def one_round(
    plan: TrainingPlan, epochs: int | None, pretraining_epochs: int | None
) -> TrainingPlan:
    """Return a plan with one round per stage, of the given epochs or of all of the plan's epochs.

    Raises:
        PlanError: A stage counts steps and no number of epochs is given for it.
    """
    requested = {
        Stage.FINETUNING: (epochs, "--epochs"),
        Stage.PRETRAINING: (pretraining_epochs, "--pretraining-epochs"),
    }
    stages = {}
    for stage, (count, option) in requested.items():
        old = plan.stage(stage)
        if count is None and old.local_steps is not None:
            raise PlanError(
                f"{stage}.local_steps is {old.local_steps}, but a study is scored after each "
                f"epoch; set {option}"
            )
        count = count or old.rounds * (old.local_epochs or 1) or 1
        update = {"rounds": 1, "local_epochs": count, "local_steps": None}
        stages[stage.value] = old.model_copy(update=update)
    return plan.model_copy(update=stages)


def with_seed(plan: TrainingPlan, seed: int) -> TrainingPlan:
    """Return the plan with another training seed; the split of the patients does not change."""
    return plan.model_copy(update={"seed": seed})


def carry_out(study: Study, device: torch.device) -> None:
    """Train every unfinished unit, with a progress bar.

    Raises:
        OutputError: The folder holds a study of another design; the message names the differences.
        SetupError: Another process uses the folder.
    """
    private_directory(study.folder)
    with exclusive_lock(study.folder / LOCK, "this study"):
        check_design(study.folder, study.design)
        if not (study.folder / DESIGN).exists():
            write_atomic(study.folder / DESIGN, study.design.model_dump_json(indent=2))
        write_atomic(study.folder / "plan.yaml", study.design.plan.to_yaml())
        open_units = [unit for unit in study.units() if not unit.done]
        with _progress() as display:
            for unit, on_step in _with_progress(display, study, open_units):
                run_unit(unit, device, on_step, KEEP_SECONDS)


def check_place(folder: Path, data: Sequence[Path]) -> None:
    """Check that the output folder can be used, before any image is prepared.

    Raises:
        OutputError: It lies in the data, holds something else, or cannot be written.
        SetupError: Another process uses it.
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
    """Check that a folder holds no study of another design.

    Raises:
        OutputError: It holds one; the message names the differences.
    """
    path = folder / DESIGN
    if not path.exists():
        return
    before = read_json(Design, path).model_dump(mode="json")
    question = Fingerprint.of(**design.model_dump(mode="json"))
    advice = "choose another --out, or use the same data and options"
    question.check(before, f"{path}: holds another study", advice)


def kept_lines(study: Study) -> list[str]:
    """Describe what an interrupted study has saved."""
    units = study.units()
    done = sum(unit.done for unit in units)
    epochs = sum(len(read_epochs(unit.path)) for unit in units)
    return [
        f"kept in {study.folder}: {done} of {len(units)} trainings and {epochs} epochs of stage 2 "
        f"in total; at most {KEEP_SECONDS:.0f} seconds of training are repeated"
    ]


def _with_progress(
    display: rich.progress.Progress, study: Study, units: Sequence[StudyTraining]
) -> Iterator[tuple[StudyTraining, Callable[[], None]]]:
    """Yield each unit with its step callback; the overall bar counts stage 2 of all units."""
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
