"""Progress bars of a simulation, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import rich.progress

from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.terminal import console
from mamfed_common.training.inference import OnStep
from mamfed_server.run_folder.round_record import RoundRecord


class Progress:
    """One progress bar per arm, counted in training steps."""

    def __init__(self) -> None:
        """Create the display; use it as a context manager."""
        self._display = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            console=console(),
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hide the bars."""
        self._display.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._display.console.print(text)

    def start(
        self, arm: str, plan: TrainingPlan, steps: Mapping[Stage, int]
    ) -> tuple[OnStep, Callable[[RoundRecord], None]]:
        """Add the bar of one arm.

        Args:
            arm: Name of the arm.
            plan: Plan of the arm.
            steps: Training steps per round of each stage, over all sites.

        Returns:
            Callbacks to run after each step and after each round.
        """
        total = sum(plan.stage(stage).rounds * steps[stage] for stage in Stage)
        task = self._display.add_task(f"{arm:<18}", total=total, note="")
        earlier = plan.pretraining.rounds * steps[Stage.PRETRAINING]

        def on_step() -> None:
            self._display.advance(task)

        def on_round(record: RoundRecord) -> None:
            before = 0 if record.stage is Stage.PRETRAINING else earlier
            done = before + record.server_round * steps[record.stage]
            dice = record.mean_validation_dice
            note = f"{record.stage} {record.server_round}/{plan.stage(record.stage).rounds}"
            if dice is not None:
                note += f", validation Dice {dice:.3f}"
            self._display.update(task, completed=done, note=note)

        return on_step, on_round
