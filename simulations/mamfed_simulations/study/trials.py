"""Train one unit of a study (a row with a seed on a fold) in a folder from which it can resume.

Each stage is one round of all its epochs, so AdamW and its schedule keep their state. After each
epoch, every validation and test image is scored; ``epochs.jsonl`` records the scores by position.
No image or patient name is ever written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.bounded import CHECKPOINT_BYTES, STATE_BYTES, parse_json, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.text import read_text
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.inference import OnStep, score_samples
from mamfed_common.training.round_checkpoint import RoundCheckpointer
from mamfed_common.training.stages import fit
from mamfed_common.transforms.sample import Sample
from mamfed_simulations.study.data import Fold
from mamfed_simulations.study.rows import Row, initial_seed

CONTEXT = RoundContext("study", 1)
EPOCHS, CHOSEN = "epochs.jsonl", "chosen.safetensors"


@dataclass(frozen=True)
class StudyTraining:
    """One training of a study.

    Attributes:
        row: The row to train.
        fold_number: Index of the fold.
        fold: Images of the fold.
        plan: The study's plan with this unit's seed.
        folder: The study's folder.
        what: Hash of the study's design; saved weights of another design are not reused.
    """

    row: Row
    fold_number: int
    fold: Fold
    plan: TrainingPlan
    folder: Path
    what: str

    @property
    def name(self) -> str:
        """The unit's folder below ``units``."""
        return f"{self.row.name}-seed{self.plan.seed}-fold{self.fold_number}"

    @property
    def path(self) -> Path:
        """Folder of the unit's files."""
        return self.folder / "units" / self.name

    @property
    def done(self) -> bool:
        """Whether every epoch has been trained and scored."""
        return len(read_epochs(self.path)) == (self.plan.finetuning.local_epochs or 1)

    def steps(self, stage: Stage) -> int:
        """Count the training steps of a stage."""
        images = len(self.fold.training if stage is Stage.FINETUNING else self.fold.benign)
        return self.plan.stage(stage).steps(images)


def run_unit(
    unit: StudyTraining, device: torch.device, on_step: OnStep, every_seconds: float
) -> None:
    """Train a unit, resuming where it stopped.

    Args:
        unit: The unit to train.
        device: Training device.
        on_step: Called after each training step of either stage.
        every_seconds: Interval between saves; the most training time that a kill may lose.
    """
    network = unit.row.build(unit.plan)
    if unit.row.pretrained:
        backbone = _pretrained(unit, device, on_step, every_seconds)
        network.load_state_dict(backbone, strict=False)
    network.to(device)
    plan = unit.row.plan(unit.plan)
    benign = unit.fold.benign if unit.row.sees_benign else ()
    batches = Batches(unit.fold.training, plan, Stage.FINETUNING, CONTEXT, benign)
    checkpointer = RoundCheckpointer(unit.path, f"{unit.what} {unit.name}", every_seconds)
    record = _Record(unit, plan, network, device)
    fit(
        network,
        batches,
        device=device,
        on_step=on_step,
        on_epoch=record.epoch,
        checkpointer=checkpointer,
    )


def _pretrained(
    unit: StudyTraining, device: torch.device, on_step: OnStep, every_seconds: float
) -> State:
    """Return the backbone after stage 1, shared by all rows of a seed and fold."""
    name = f"pretraining-seed{unit.plan.seed}-fold{unit.fold_number}"
    folder = private_directory(unit.folder / "units" / name)
    checkpointer = RoundCheckpointer(folder, f"{unit.what} {name}", every_seconds)
    network = build_network(unit.plan.network, initial_seed(unit.plan)).to(device)
    batches = Batches(unit.fold.benign, unit.plan, Stage.PRETRAINING, CONTEXT)
    state = fit(network, batches, device=device, on_step=on_step, checkpointer=checkpointer).state
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


class _Record:
    """Score a unit's network after each epoch and record the Dice of each image."""

    def __init__(
        self, unit: StudyTraining, plan: TrainingPlan, network: nn.Module, device: torch.device
    ) -> None:
        self._unit, self._plan, self._network, self._device = unit, plan, network, device
        self._trained_since = time.process_time()

    def epoch(self, epoch: int) -> None:
        """Append the epoch to the file; save its weights if their validation Dice is the best."""
        seconds = time.process_time() - self._trained_since
        fold, path = self._unit.fold, self._unit.path
        line = {
            "epoch": epoch,
            "validation": self._dice(fold.validation),
            "test": self._dice(fold.test),
            "training_cpu_seconds": round(seconds, 2),
        }
        earlier = [e for e in read_epochs(path) if e["epoch"] < epoch]
        epochs = [*earlier, line]
        if chosen_epoch(epochs) == epoch:
            write_atomic(path / CHOSEN, save(state_of(self._network)))
        write_atomic(path / EPOCHS, "".join(json.dumps(e) + "\n" for e in epochs))
        self._trained_since = time.process_time()

    def _dice(self, samples: Sequence[Sample]) -> list[float]:
        scores = score_samples(self._network, samples, self._plan, device=self._device)
        return [round(score.dice, 6) for score in scores]


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Return a unit's recorded epochs in order."""
    path = folder / EPOCHS
    if not path.exists():
        return []
    return [parse_json(line) for line in read_text(path, STATE_BYTES).splitlines()]


def chosen_epoch(epochs: Sequence[dict[str, Any]]) -> int:
    """Return the index, from 0, of the first epoch with the highest mean validation Dice."""
    return int(np.argmax([np.mean(epoch["validation"]) for epoch in epochs]))


def chosen_network(unit: StudyTraining, device: torch.device) -> nn.Module:
    """Return the network of a finished unit's chosen epoch."""
    network = unit.row.build(unit.plan)
    network.load_state_dict(load(read_bytes(unit.path / CHOSEN, CHECKPOINT_BYTES)))
    return network.to(device)
