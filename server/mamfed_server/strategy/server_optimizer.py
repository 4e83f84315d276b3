"""The server's own optimizer: a round's mean update taken as a gradient.

FedAvg replaces the weights by the mean. FedAvgM (Hsu et al., "Measuring the Effects of
Non-Identical Data Distribution for Federated Visual Classification", 2019) and FedAdam (Reddi et
al., "Adaptive Federated Optimization", ICLR 2021) take ``global_state - mean`` as the gradient of
an optimizer that remembers earlier rounds. Each stage begins with a fresh one, because it minimises
something else.

The state is stored beside the checkpoints, one file per round, named after the round and bound to
the weights that the round ended with. Every round reads the file of the round before it, even in
the same process, so a run that crashed resumes with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from mamfed_common.config import Config
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import FederationPlan, Stage, TrainingPlan
from mamfed_common.runtime.bounded import CHECKPOINT_BYTES, open_regular
from mamfed_common.runtime.files import write_atomic

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

HEADER_KEY = "mamfed"
BETA_2, EPSILON = 0.99, 1e-3
"""As Reddi et al. chose them for FedAdam; torch's Adam corrects the bias as well."""
KEPT_FILES = 3
"""After a crash ``previous`` may be two rounds old, and its state is needed then."""

OptimizerName = Literal["none", "momentum", "adam"]
Position = tuple[Stage, int]
"""A stage and its round, counted from 1."""

Parameters = dict[str, "nn.Parameter"]


class _Facts(Config):
    """The header of a state file.

    Attributes:
        weights_sha256: SHA-256 of the weights that the round ended with.
        sha256: SHA-256 of the optimizer's state.
    """

    weights_sha256: str
    sha256: str


class ServerOptimizer:
    """Turns a round's mean into its new weights."""

    def __init__(
        self,
        plan: TrainingPlan,
        folder: Path,
        warn: Callable[[str], None],
        name: OptimizerName | None = None,
    ) -> None:
        """Use ``folder``, which exists by the first round, for the state.

        Args:
            plan: Holds the learning rate and the momentum.
            folder: The run's checkpoint folder.
            warn: Called where a state cannot be used and the optimizer starts afresh.
            name: Which optimizer, None for the plan's; ``none`` is FedAvg and stores nothing.
        """
        self._plan, self._folder, self._warn = plan, folder, warn
        self._name = plan.federation.server_optimiser if name is None else name

    def step(self, global_state: State, mean: State, position: Position) -> State:
        """Return the weights that a round ends with.

        Args:
            global_state: The weights that the round started from.
            mean: The mean of the round's accepted updates.
            position: The round.
        """
        if self._name == "none":
            return mean
        from torch import nn

        parameters = {
            name: nn.Parameter(tensor.clone())
            for name, tensor in global_state.items()
            if tensor.is_floating_point()
        }
        optimizer = _make_optimizer(parameters, self._name, self._plan.federation)
        number = self._number(position)
        if position[1] > 1:
            self._restore(optimizer, parameters, number - 1, state_sha256(global_state))
        for name, parameter in parameters.items():
            parameter.grad = global_state[name] - mean[name]
        optimizer.step()
        state = mean | {name: parameter.detach() for name, parameter in parameters.items()}
        self._save(optimizer, parameters, number, state_sha256(state))
        return state

    def _number(self, position: Position) -> int:
        """Return how many rounds of the run come before this one."""
        stage, server_round = position
        before = self._plan.pretraining.rounds if stage is Stage.FINETUNING else 0
        return before + server_round - 1

    def _restore(
        self, optimizer: Optimizer, parameters: Parameters, number: int, weights_sha256: str
    ) -> None:
        """Give a fresh optimizer the state that the round before this one left."""
        path = self._path(number)
        try:
            stored = _read(path, weights_sha256)
        except (OSError, SafetensorError, ValidationError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "missing" if missing else "damaged, or of other weights"
            self._warn(f"{path.name} is {reason}: the server's optimiser starts anew")
            return
        for key, tensor in stored.items():
            name, _, slot = key.rpartition("/")
            optimizer.state[parameters[name]][slot] = tensor

    def _save(
        self, optimizer: Optimizer, parameters: Parameters, number: int, weights_sha256: str
    ) -> None:
        import torch
        from safetensors.torch import save

        state = {
            f"{name}/{slot}": value
            for name, parameter in parameters.items()
            for slot, value in optimizer.state[parameter].items()
            if isinstance(value, torch.Tensor)
        }
        facts = _Facts(weights_sha256=weights_sha256, sha256=state_sha256(state))
        header = {HEADER_KEY: facts.model_dump_json()}
        write_atomic(self._path(number), save(state, metadata=header))
        self._path(number - KEPT_FILES).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"optimiser-{number + 1:04}.safetensors"


def _make_optimizer(
    parameters: Parameters, name: OptimizerName, federation: FederationPlan
) -> Optimizer:
    from torch.optim import SGD, Adam

    values, rate = list(parameters.values()), federation.server_learning_rate
    if name == "adam":
        return Adam(values, rate, betas=(federation.server_momentum, BETA_2), eps=EPSILON)
    return SGD(values, rate, momentum=federation.server_momentum)


def _read(path: Path, weights_sha256: str) -> State:
    """Read a state.

    Raises:
        OSError, SafetensorError, ValidationError: The file is missing or cannot be decoded.
        ValueError: It is damaged, or belongs to other weights.
    """
    open_regular(path, CHECKPOINT_BYTES).close()
    with safe_open(path, framework="pt", device="cpu") as handle:
        text = (handle.metadata() or {}).get(HEADER_KEY, "")
        state = {name: handle.get_tensor(name) for name in handle.keys()}
    facts = _Facts.model_validate_json(text)
    if facts != _Facts(weights_sha256=weights_sha256, sha256=state_sha256(state)):
        raise ValueError("not the state of these weights")
    return state
