"""The round that a site is training, kept on its own disk: a kill costs minutes, not the round.

Two safetensors files at most in a folder, named after the round they belong to: how far it is
(weights, AdamW's moments, position) and, once it is over, its result for a server that asks again.
No random state is kept: every draw of training is named (``mamfed_common.runtime.seeds``) and
torch's own generator is never drawn from. On a CPU a round that was cut short ends with the same
bits.
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
"""How the names of a file's tensors begin."""
KEPT_FILE = re.compile(r"\.?([0-9a-f]{16})\.(?:progress|result)\.safetensors(?:\..+\.draft)?")


class TrainingResult(NamedTuple):
    """What one site's share of one round gives.

    Attributes:
        state: The trained weights, float32 on the CPU.
        num_examples: Images of each kind that the site used.
        loss: Mean training loss over the last local epoch, or over the round's steps.
    """

    state: State
    num_examples: dict[Purpose, int]
    loss: float


class RoundPosition(NamedTuple):
    """How far a round is.

    Attributes:
        epoch: The local epoch under way, counted from 0.
        step: Its next step, counted from 0; the number of its steps where the last one is done.
        loss_sum: The loss of each of the epoch's images so far, added up.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0


class _Facts(FileFacts):
    """What a file of a round says of itself."""

    num_examples: Examples


class _ProgressFacts(_Facts):
    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    loss_sum: float


class _ResultFacts(_Facts):
    loss: float


class RoundCheckpointer:
    """Keeps one round of one site in a folder; the files of other rounds there are removed."""

    def __init__(self, folder: Path, what: str, every_seconds: float = 60.0) -> None:
        """Open the folder (made if missing, 0700) for a round.

        Args:
            folder: Where the files lie.
            what: All that decides the round: plan, stage, round, starting weights, site.
            every_seconds: How much training a kill may cost; 0 keeps every step.
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
        """Put a fresh network and optimizer where the round was last kept.

        Args:
            network: The round's network; its weights are replaced if something was kept.
            optimizer: A fresh optimizer over ``network.parameters()``.
            num_examples: Images of the round. With other numbers than before it starts anew.

        Returns:
            Where to go on: the start where nothing usable was kept.
        """
        kept = self._read("progress", _ProgressFacts)
        if kept is None:
            return RoundPosition()
        facts, tensors = kept
        if facts.num_examples != num_examples:
            logger.warning("the round starts anew: the number of images has changed")
            return RoundPosition()
        unpack_progress(tensors, network, optimizer)
        logger.info("the round goes on at epoch %d, step %d", facts.epoch, facts.step)
        return RoundPosition(facts.epoch, facts.step, facts.loss_sum)

    def step(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        position: RoundPosition,
        num_examples: dict[Purpose, int],
    ) -> None:
        """Keep the round as it is between two steps, if it is time."""
        if monotonic() - self._kept_at < self._every_seconds:
            return
        facts = _ProgressFacts(what=self._what, num_examples=num_examples, **position._asdict())
        self._write("progress", facts, pack_progress(network, optimizer))
        self._kept_at = monotonic()

    def finish(self, result: TrainingResult) -> None:
        """Keep the result of the whole round, and no longer the way to it."""
        facts = _ResultFacts(what=self._what, num_examples=result.num_examples, loss=result.loss)
        if self._write("result", facts, result.state):
            self._path("progress").unlink(missing_ok=True)

    def result(self) -> TrainingResult | None:
        """Return the kept result; None where the round is not over, or its file is damaged."""
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
    """Return all that training changes, by name: weights, and the optimizer's moments."""
    weights = {f"{NETWORK_PREFIX}{name}": value for name, value in state_of(network).items()}
    return weights | moments_of(optimizer)


def unpack_progress(tensors: State, network: nn.Module, optimizer: Optimizer) -> None:
    """Put a network and an optimizer over its parameters where :func:`pack_progress` found them."""
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
    """Give an optimizer over the same parameters what :func:`moments_of` found."""
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
    """Turn ``{"3.exp_avg": tensor}`` into ``{3: {"exp_avg": tensor}}``, as torch has it."""
    parameters: dict[int, State] = {}
    for name, tensor in moments.items():
        index, _, key = name.partition(".")
        parameters.setdefault(int(index), {})[key] = tensor
    return parameters
