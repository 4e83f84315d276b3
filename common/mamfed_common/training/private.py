"""Train one round with differential privacy of each patient: DP-SGD whose unit is a patient.

Abadi et al. 2016 (arXiv:1607.00133), with all images of a patient as one example: each step takes
every patient with a fixed probability, clips the gradient of the mean loss over the patient's
images, and adds Gaussian noise to the sum over patients. What the weights then reveal about any one
patient is bounded by the steps, the probability and the noise alone
(``mamfed_client.disclosure.privacy_ledger``). Why not opacus' own loop: decision 0056.

Every draw comes from the round's secret. The plan's seed would not do: the coordinator knows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mamfed_common.model.state_dict import state_of
from mamfed_common.security.secret_noise import gaussian, uniform
from mamfed_common.training.batches import Batch, Batches, Draw
from mamfed_common.training.device import autocast
from mamfed_common.training.inference import OnStep
from mamfed_common.training.objective import StepLoss
from mamfed_common.training.optimizer_state import OptimizerState
from mamfed_common.training.round_checkpoint import (
    RoundCheckpointer,
    RoundPosition,
    TrainingResult,
)
from mamfed_common.training.stages import WEIGHT_DECAY, learning_rate_factor

ROUNDING = 1 + 1e-6
"""A clipped gradient is that much shorter, so that rounding never makes it too long."""


class Patient(NamedTuple):
    """One patient's images in a stage, by their index: the stage's own, and companion images."""

    images: tuple[int, ...]
    companions: tuple[int, ...]


class PrivateRound(NamedTuple):
    """What a private round needs beside its batches.

    Attributes:
        patients: All patients of the round.
        rates: Probability with which a step takes each of them.
        clip_norm: Largest L2 norm of a patient's gradient.
        noise_multiplier: Standard deviation of the noise on the sum, as a multiple of the norm.
        secret: Random bytes that nobody else knows, of this round alone.
    """

    patients: tuple[Patient, ...]
    rates: tuple[float, ...]
    clip_norm: float
    noise_multiplier: float
    secret: bytes

    @property
    def expected(self) -> float:
        """Return the expected number of patients in a step."""
        return sum(self.rates)

    def chosen(self, step: int) -> list[int]:
        """Draw the patients of a step, each independently of all others."""
        drawn = uniform(len(self.patients), self._seed("patients", step))
        return [i for i, rate in enumerate(self.rates) if drawn[i] < rate]

    def noise(self, step: int, number: int, like: Tensor) -> Tensor:
        """Draw the noise of one parameter's gradient."""
        sigma = self.noise_multiplier * self.clip_norm
        drawn = torch.from_numpy(gaussian(like.numel(), self._seed("noise", step, number)))
        return (sigma * drawn).reshape(like.shape).to(like)

    def batch(self, batches: Batches, step: int, patient: int) -> Batch:
        """Return all images of a patient, each transformed as it happens to be in this step."""
        names = ("private", self.secret.hex(), step, patient)
        images: list[Draw] = [(i, (*names, i)) for i in self.patients[patient].images]
        beside: list[Draw] = [(i, (*names, "beside", i)) for i in self.patients[patient].companions]
        return batches.of(images, beside)

    def _seed(self, *names: str | int) -> bytes:
        return self.secret + " ".join(map(str, names)).encode()


def patients_of(images: Sequence[str], companions: Sequence[str]) -> tuple[Patient, ...]:
    """Return the patients of a stage's own and companion images, given the patient of each."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for kind, names in enumerate((images, companions)):
        for index, name in enumerate(names):
            found.setdefault(name, ([], []))[kind].append(index)
    return tuple(Patient(tuple(own), tuple(beside)) for own, beside in found.values())


def fit_privately(
    network: nn.Module,
    batches: Batches,
    private: PrivateRound,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
    checkpointer: RoundCheckpointer | None = None,
    optimizer_state: OptimizerState | None = None,
) -> TrainingResult:
    """Train a network for one round, as :func:`mamfed_common.training.stages.fit` does it.

    The result has no loss (NaN): nothing bounds what a loss reveals.
    """
    network.train()
    step_loss, stage = StepLoss(network, batches, device), batches.stage_plan
    optimizer = torch.optim.AdamW(
        network.parameters(), stage.learning_rate, weight_decay=WEIGHT_DECAY
    )
    start = [parameter.detach().clone() for parameter in step_loss.trained.parameters()]
    if optimizer_state:
        optimizer_state.restore(optimizer)
    position = RoundPosition()
    if checkpointer:
        position = checkpointer.resume(network, optimizer, batches.num_examples)
    for step in range(position.step, batches.epochs * batches.steps_per_epoch):
        progress = batches.progress(*divmod(step, batches.steps_per_epoch))
        optimizer.param_groups[0]["lr"] = stage.learning_rate * learning_rate_factor(progress)
        optimizer.zero_grad()
        _set_gradients(step_loss, batches, private, step, start)
        optimizer.step()
        if checkpointer:
            position = RoundPosition(0, step + 1, math.nan)
            checkpointer.step(network, optimizer, position, batches.num_examples)
        if on_step:
            on_step()
    if optimizer_state:
        optimizer_state.keep(optimizer)
    result = TrainingResult(state_of(network), batches.num_examples, math.nan)
    if checkpointer:
        checkpointer.finish(result)
    return result


def clipped_sum(
    step_loss: StepLoss, batches: Batches, private: PrivateRound, step: int
) -> list[Tensor]:
    """Return the sum of the clipped gradients of a step's patients, one tensor a parameter."""
    parameters = list(step_loss.trained.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for patient in private.chosen(step):
        batch = private.batch(batches, step, patient)
        with autocast(parameters[0].device, batches.plan.precision):
            loss = step_loss(batch)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        scale = _scale(gradients, private.clip_norm)
        for place, gradient in zip(total, gradients, strict=True):
            if scale and gradient is not None:
                place.add_(gradient, alpha=scale)
    return total


def _set_gradients(
    step_loss: StepLoss,
    batches: Batches,
    private: PrivateRound,
    step: int,
    start: Sequence[Tensor],
) -> None:
    """Set each parameter's gradient: the noisy mean over patients, and FedProx's pull."""
    total = clipped_sum(step_loss, batches, private, step)
    mu = batches.plan.federation.proximal_mu
    trained = zip(step_loss.trained.parameters(), total, start, strict=True)
    for number, (parameter, gradient, global_weight) in enumerate(trained):
        noisy = gradient + private.noise(step, number, gradient)
        parameter.grad = noisy / private.expected
        if mu:
            parameter.grad.add_(parameter.detach() - global_weight, alpha=mu)


def _scale(gradients: Sequence[Tensor | None], clip_norm: float) -> float:
    """Return what shortens a gradient to the norm; 0, which leaves it out, if it is not finite."""
    squares = (float(g.double().square().sum()) for g in gradients if g is not None)
    norm = math.sqrt(sum(squares))
    if not math.isfinite(norm):
        return 0.0
    return min(1.0, clip_norm / (norm * ROUNDING)) if norm else 1.0
