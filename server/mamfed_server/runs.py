"""The run folder: what was asked, what happened in every round, and what came out.

====================================  =========================================================
``plan.yaml``                         the resolved plan
``rounds.jsonl``                      one line a round, see :class:`RoundRecord`
``checkpoints/latest.safetensors``    after every round (``.json`` beside each)
``checkpoints/best.safetensors``      highest mean validation Dice of stage 2
``checkpoints/final.safetensors``     after the last round
``summary.json``                      who took part, how it ended, test results
====================================  =========================================================
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field

from mamfed_common.checkpoint import Checkpoint, save_checkpoint
from mamfed_common.config import Config
from mamfed_common.errors import DataError, OutputError
from mamfed_common.files import private_directory, write_atomic
from mamfed_common.metrics import SiteScore
from mamfed_common.plan import Stage, TrainingPlan

PLAN, ROUNDS, SUMMARY, CHECKPOINTS = "plan.yaml", "rounds.jsonl", "summary.json", "checkpoints"


class Contribution(Config):
    """One accepted update: its number of examples, share of the mean, and training loss."""

    num_examples: int
    share: float
    loss: float


class RoundRecord(Config):
    """One line of ``rounds.jsonl``.

    Attributes:
        stage: The round's stage.
        server_round: The round, counted from 1 within its stage.
        expected: Sites that were asked.
        answered: Sites that sent anything back before the deadline.
        accepted: Sites whose update is in the new weights.
        refused: Sites whose update is not, each with the reason.
        validation: Each validating site's result with the new weights (stage 2).
        mean_validation_dice: Mean over sites of their validation Dice.
        bytes_sent: Bytes of weights sent to sites for training.
        bytes_received: Bytes of weights received in updates, refused ones too.
        seconds: How long the round took, validation included.
    """

    stage: Stage
    server_round: int
    expected: tuple[str, ...]
    answered: tuple[str, ...]
    accepted: dict[str, Contribution]
    refused: dict[str, str]
    validation: dict[str, SiteScore] = Field(default_factory=dict)
    mean_validation_dice: float | None = None
    bytes_sent: int = Field(default=0, ge=0)
    bytes_received: int = Field(default=0, ge=0)
    seconds: float = 0.0


class RunFolder:
    """One run's folder on disk. Every file in it is readable by its owner only."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made until :meth:`create`."""
        self.path = path

    def create(self, plan: TrainingPlan) -> None:
        """Make the folder and write the resolved plan. An earlier run there is moved aside.

        Raises:
            OutputError: The path is a file, holds something else than a run, or cannot be made.
        """
        try:
            self._keep_earlier_run()
            private_directory(self.path)
            private_directory(self.path / CHECKPOINTS)
            write_atomic(self.path / PLAN, plan.to_yaml())
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot make the run folder: {error.strerror}"
            ) from None

    def _keep_earlier_run(self) -> None:
        """Rename an earlier run to ``NAME.1``, ``NAME.2`` ...: no result is ever overwritten."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            return
        if not self.path.exists():
            return
        if not (self.path / PLAN).is_file():
            raise OutputError(f"{self.path}: exists and is not a run folder; choose another")
        numbers = itertools.count(1)
        names = (self.path.with_name(f"{self.path.name}.{n}") for n in numbers)
        self.path.rename(next(name for name in names if not name.exists()))

    def checkpoint_path(self, name: str) -> Path:
        """Return where the ``latest``, ``best`` or ``final`` checkpoint lies."""
        return self.path / CHECKPOINTS / f"{name}.safetensors"

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write the ``latest``, ``best`` or ``final`` checkpoint."""
        save_checkpoint(self.checkpoint_path(name), checkpoint)

    def append_round(self, record: RoundRecord) -> None:
        """Add a line to ``rounds.jsonl`` and make sure that it is on disk."""
        descriptor = os.open(self.path / ROUNDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as handle:
            handle.write(record.model_dump_json() + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def rounds(self) -> list[RoundRecord]:
        """Read ``rounds.jsonl``; empty where no round has ended."""
        path = self.path / ROUNDS
        if not path.exists():
            return []
        return [RoundRecord.model_validate_json(line) for line in path.read_text().splitlines()]

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_atomic(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """Read ``summary.json``.

        Raises:
            DataError: The folder is not one of a run that has ended.
        """
        path = self.path / SUMMARY
        try:
            summary = json.loads(path.read_text())
        except (OSError, ValueError):
            raise DataError(f"{path}: no summary of a run that has ended") from None
        assert isinstance(summary, dict)
        return summary
