"""The server's own optimiser: a round's mean update taken as a gradient.

FedAvg puts the mean in place of the weights. FedAvgM (Hsu et al., "Measuring the Effects of
Non-Identical Data Distribution for Federated Visual Classification", 2019) and FedAdam (Reddi et
al., "Adaptive Federated Optimization", ICLR 2021) take ``start - mean`` as the gradient of an
optimiser that remembers the rounds before. Each stage begins with a fresh one: it minimises
something else.

The state lies beside the checkpoints, one file a round, named after the round and bound to the
weights that the round ended with. Every round reads the file of the round before it, whether or not
the process is the same, so a run that was killed goes on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from mamfed_common.config import Config
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import FederationPlan, TrainingPlan
from mamfed_common.runtime.files import write_atomic
from mamfed_server.run.resume import Position, round_positions

HEADER_KEY = "mamfed"
BETA_2, EPSILON = 0.99, 1e-3
"""FedAdam's, as Reddi et al. chose them; ours is torch's Adam, which also corrects their bias."""
KEPT_FILES = 3
"""A kill may leave ``previous`` two rounds behind the round under way, whose state is needed."""

Parameters = dict[str, nn.Parameter]


class _Facts(Config):
    """What a file says of itself.

    Attributes:
        weights_sha256: Of the weights that the round ended with.
        sha256: Of the optimiser's state.
    """

    weights_sha256: str
    sha256: str


class ServerOptimizer:
    """Turns a round's mean into its new weights."""

    def __init__(self, plan: TrainingPlan, folder: Path, warn: Callable[[str], None]) -> None:
        """Keep its state in a folder that is there by the first round.

        Args:
            plan: Says which optimiser; ``none`` is FedAvg, and keeps nothing.
            folder: Of the run's checkpoints.
            warn: Told where a state cannot be used, and the optimiser starts anew.
        """
        self._plan, self._folder, self._warn = plan, folder, warn

    def step(self, start: State, mean: State, position: Position) -> State:
        """Return the weights that a round ends with.

        Args:
            start: The weights that the round started from.
            mean: Of the round's accepted updates.
            position: The round.
        """
        federation = self._plan.federation
        if federation.server_optimiser == "none":
            return mean
        moved = {n: nn.Parameter(t.clone()) for n, t in start.items() if t.is_floating_point()}
        optimiser = _optimiser(moved, federation)
        number = round_positions(self._plan).index(position)
        if position[1] > 1:
            self._restore(optimiser, moved, number - 1, state_sha256(start))
        for name, parameter in moved.items():
            parameter.grad = start[name] - mean[name]
        optimiser.step()
        state = mean | {name: parameter.detach() for name, parameter in moved.items()}
        self._keep(optimiser, moved, number, state_sha256(state))
        return state

    def _restore(
        self, optimiser: Optimizer, parameters: Parameters, number: int, weights_sha256: str
    ) -> None:
        """Put a fresh optimiser where the round before this one left it."""
        path = self._path(number)
        try:
            kept = _read(path, weights_sha256)
        except (OSError, SafetensorError, ValidationError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "missing" if missing else "damaged, or of other weights"
            self._warn(f"{path.name} is {reason}: the server's optimiser starts anew")
            return
        for key, tensor in kept.items():
            name, _, what = key.rpartition("/")
            optimiser.state[parameters[name]][what] = tensor

    def _keep(
        self, optimiser: Optimizer, parameters: Parameters, number: int, weights_sha256: str
    ) -> None:
        state = {
            f"{name}/{what}": value
            for name, parameter in parameters.items()
            for what, value in optimiser.state[parameter].items()
            if isinstance(value, torch.Tensor)
        }
        facts = _Facts(weights_sha256=weights_sha256, sha256=state_sha256(state))
        header = {HEADER_KEY: facts.model_dump_json()}
        write_atomic(self._path(number), save(state, metadata=header))
        self._path(number - KEPT_FILES).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"optimiser-{number + 1:04}.safetensors"


def _optimiser(parameters: Parameters, federation: FederationPlan) -> Optimizer:
    values, rate = list(parameters.values()), federation.server_learning_rate
    if federation.server_optimiser == "adam":
        return Adam(values, rate, betas=(federation.server_momentum, BETA_2), eps=EPSILON)
    return SGD(values, rate, momentum=federation.server_momentum)


def _read(path: Path, weights_sha256: str) -> State:
    """Read a state.

    Raises:
        OSError, SafetensorError, ValidationError: There is none, or it cannot be decoded.
        ValueError: It is damaged, or of other weights.
    """
    with safe_open(path, framework="pt", device="cpu") as handle:
        text = (handle.metadata() or {}).get(HEADER_KEY, "")
        state = {name: handle.get_tensor(name) for name in handle.keys()}
    facts = _Facts.model_validate_json(text)
    if facts != _Facts(weights_sha256=weights_sha256, sha256=state_sha256(state)):
        raise ValueError("not the state of these weights")
    return state
