"""Save the round in progress on the site's disk, so that a crash loses minutes, not the round.

A folder holds at most two safetensors files, named after their round: the progress (weights,
AdamW's moments, position) and, once the round is finished, its result, in case the server asks
again. No random state is saved: every draw has a named seed (``mamfed_common.runtime.seeds``) and
training never uses torch's own generator. On a CPU an interrupted round ends with the same bits.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from mamfed_common.domain import Examples, Purpose
from mamfed_common.model.checked_file import AnyFacts, FileFacts, read_checked, write_checked
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.runtime.files import private_directory

logger = logging.getLogger(__name__)

NETWORK_PREFIX, OPTIMIZER_PREFIX = "network.", "optimiser."
"""Prefixes of the tensor names in a progress file."""
KEPT_FILE = re.compile(r"\.?([0-9a-f]{16})\.(?:progress|result)\.safetensors(?:\..+\.draft)?")


class TrainingResult(NamedTuple):
    """The result of one round at one site.

    Attributes:
        state: The trained weights, float32 on the CPU.
        num_examples: Images that the site used, by purpose.
        loss: Mean training loss over the last local epoch, or over the round's steps.
    """

    state: State
    num_examples: dict[Purpose, int]
    loss: float


class RoundPosition(NamedTuple):
    """The position within a round.

    Attributes:
        epoch: The current local epoch, from 0.
        step: Its next step, from 0; equal to its number of steps after the last one.
        loss_sum: Sum of the losses of the epoch's images so far.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0


class _Facts(FileFacts):
    """Facts in the header of a round's file."""

    num_examples: Examples


class _ProgressFacts(_Facts):
    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    loss_sum: float


class _ResultFacts(_Facts):
    loss: float


class RoundCheckpointer:
    """Save one round of one site in a folder, removing the files of other rounds there."""

    def __init__(self, folder: Path, what: str, every_seconds: float = 60.0) -> None:
        """Open the folder for a round, creating it if necessary (0700).

        Args:
            folder: Folder of the files.
            what: Everything that determines the round: plan, stage, round, global weights, site.
            every_seconds: Time between saves, which is what a crash may lose; 0 saves every step.
        """
        self._folder = private_directory(folder)
        self._what = what
        self._name = hashlib.sha256(what.encode()).hexdigest()[:16]
        self._every_seconds = every_seconds
        self._kept_at = monotonic()
        self._remove_others()

    def resume(
        self, network: nn.Module, optimizer: Optimizer, num_examples: dict[Purpose, int]
    ) -> RoundPosition:
        """Load the last saved progress into a fresh network and optimizer.

        Args:
            network: The round's network; saved weights replace its own.
            optimizer: A fresh optimizer over ``network.parameters()``.
            num_examples: Images of the round. If they differ from the saved ones, it restarts.

        Returns:
            The position to resume from; the start of the round if there is no usable save.
        """
        kept = self._read("progress", _ProgressFacts)
        if kept is None:
            return RoundPosition()
        facts, tensors = kept
        if facts.num_examples != num_examples:
            logger.warning("the round restarts: the number of images has changed")
            return RoundPosition()
        unpack_progress(tensors, network, optimizer)
        logger.info("the round resumes at epoch %d, step %d", facts.epoch, facts.step)
        return RoundPosition(facts.epoch, facts.step, facts.loss_sum)

    def step(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        position: RoundPosition,
        num_examples: dict[Purpose, int],
    ) -> None:
        """Save the progress between two steps if ``every_seconds`` have passed."""
        if monotonic() - self._kept_at < self._every_seconds:
            return
        facts = _ProgressFacts(what=self._what, num_examples=num_examples, **position._asdict())
        self._write("progress", facts, pack_progress(network, optimizer))
        self._kept_at = monotonic()

    def finish(self, result: TrainingResult) -> None:
        """Save the round's result and remove its progress."""
        facts = _ResultFacts(what=self._what, num_examples=result.num_examples, loss=result.loss)
        if self._write("result", facts, result.state):
            self._path("progress").unlink(missing_ok=True)

    def result(self) -> TrainingResult | None:
        """Return the saved result; None if the round is unfinished or its file is damaged."""
        kept = self._read("result", _ResultFacts)
        return kept and TrainingResult(kept[1], kept[0].num_examples, kept[0].loss)

    def _path(self, kind: str) -> Path:
        return self._folder / f"{self._name}.{kind}.safetensors"

    def _remove_others(self) -> None:
        for path in self._folder.iterdir():
            found = KEPT_FILE.fullmatch(path.name)
            if found and (found[1] != self._name or path.suffix != ".safetensors"):
                path.unlink(missing_ok=True)

    def _write(self, kind: str, facts: _Facts, tensors: Mapping[str, Tensor]) -> bool:
        return write_checked(self._path(kind), facts, tensors)

    def _read(self, kind: str, facts_kind: type[AnyFacts]) -> tuple[AnyFacts, State] | None:
        return read_checked(self._path(kind), self._what, facts_kind)


def pack_progress(network: nn.Module, optimizer: Optimizer) -> State:
    """Return everything that training changes, by name: weights and the optimizer's moments."""
    weights = {f"{NETWORK_PREFIX}{name}": value for name, value in state_of(network).items()}
    return weights | moments_of(optimizer)


def unpack_progress(tensors: State, network: nn.Module, optimizer: Optimizer) -> None:
    """Load what :func:`pack_progress` returned into a network and its optimizer."""
    network.load_state_dict(_below(NETWORK_PREFIX, tensors))
    set_moments(tensors, optimizer)


def moments_of(optimizer: Optimizer) -> State:
    """Return an optimizer's moments and step counters by name, on the CPU."""
    return {
        f"{OPTIMIZER_PREFIX}{index}.{key}": value.detach().cpu()
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def set_moments(tensors: State, optimizer: Optimizer) -> None:
    """Load what :func:`moments_of` returned into an optimizer over the same parameters."""
    groups = optimizer.state_dict()["param_groups"]
    moments = _by_parameter(_below(OPTIMIZER_PREFIX, tensors))
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _by_parameter(moments: Mapping[str, Tensor]) -> dict[int, State]:
    """Turn ``{"3.exp_avg": tensor}`` into torch's form ``{3: {"exp_avg": tensor}}``."""
    parameters: dict[int, State] = {}
    for name, tensor in moments.items():
        index, _, key = name.partition(".")
        parameters.setdefault(int(index), {})[key] = tensor
    return parameters
