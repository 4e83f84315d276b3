"""Both stages and their evaluation: weights in, weights and metrics out. No federation here.

Reproducible on a CPU: the same weights, samples, plan, names and thread count give the same bits.
Order, augmentation and corruption come from generators named after site, stage, round, epoch and
image, so nothing depends on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mamfed_common.augmentation import move, vary_intensity
from mamfed_common.corruption import corrupt
from mamfed_common.device import autocast
from mamfed_common.local_state import Position, RoundKeeper
from mamfed_common.local_state import TrainingResult as TrainingResult  # training's own result
from mamfed_common.losses import reconstruction_loss, segmentation_loss
from mamfed_common.metrics import ImageScore, score_image
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.samples import FULL_SCALE, Sample
from mamfed_common.seeds import generator
from mamfed_common.state import State, check_state, state_of
from mamfed_common.subtraction import MalignancyNetwork

WARM_UP = 0.1
"""Share of a stage over which the learning rate rises to its peak."""
WEIGHT_DECAY = 1e-5
MAX_GRADIENT_NORM = 1.0

OnStep = Callable[[], None]
Batch = tuple[Tensor, Tensor]


class Turn(NamedTuple):
    """Whose turn it is: the site, and the round within the stage, counted from 1."""

    site: str
    server_round: int


def pretrain(
    state: State,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    turn: Turn,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
    keep: RoundKeeper | None = None,
) -> TrainingResult:
    """Stage 1: train the backbone to reconstruct corrupted benign mammograms.

    Args:
        state: Weights to start from, of the plan's network.
        samples: The site's benign training images.
        plan: What to do.
        turn: Whose turn it is.
        device: Where to do it.
        on_step: Called after each step, for a progress bar.
        keep: Keeps the round on disk. One that was cut short goes on where it was last kept,
            and one that is over gives its result again.

    Raises:
        WeightsError: ``state`` is not of the plan's network.
    """

    def make_pair(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        clean = move(sample, plan.augmentation, rng)
        return corrupt(clean.image, clean.field, plan.corruption, rng), clean.image

    network = load_network(state, plan, device)
    loss = reconstruction_loss()
    return _fit(
        network,
        lambda inputs, clean: loss(network.reconstruct(inputs).float(), clean),
        _Batches(samples, plan, Stage.PRETRAINING, turn, make_pair),
        device,
        on_step,
        keep,
    )


def finetune(
    state: State,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    turn: Turn,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
    keep: RoundKeeper | None = None,
) -> TrainingResult:
    """Stage 2: train the whole network on malignant mammograms and their masks.

    Arguments and errors are those of :func:`pretrain`; ``samples`` are malignant ones.
    """

    def make_pair(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        moved = vary_intensity(move(sample, plan.augmentation, rng), plan.augmentation, rng)
        return moved.image, moved.mask.astype(np.uint16) * np.uint16(FULL_SCALE)

    network = load_network(state, plan, device)
    loss = segmentation_loss()
    return _fit(
        network,
        lambda inputs, masks: loss(network(inputs).float(), masks),
        _Batches(samples, plan, Stage.FINETUNING, turn, make_pair),
        device,
        on_step,
        keep,
    )


TRAINERS = {Stage.PRETRAINING: pretrain, Stage.FINETUNING: finetune}


def evaluate(
    state: State,
    samples: Iterable[Sample],
    plan: TrainingPlan,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
) -> list[ImageScore]:
    """Score the malignancy map of every sample, in their order, one image at a time.

    Raises:
        WeightsError: ``state`` is not of the plan's network.
    """
    network = load_network(state, plan, device)
    scores = []
    for sample in samples:
        probability = predict(network, sample, plan, device).malignancy
        scores.append(
            score_image(sample.name, probability >= plan.evaluation.threshold, sample.mask)
        )
        if on_step:
            on_step()
    return scores


class Prediction(NamedTuple):
    """What the network makes of one image: two ``(S, S)`` float32 arrays.

    Attributes:
        reconstruction: The healthy tissue that the backbone draws, about 0..1.
        malignancy: Probability of malignancy, 0..1; 0 outside the breast.
    """

    reconstruction: np.ndarray
    malignancy: np.ndarray


@torch.no_grad()
def predict(
    network: MalignancyNetwork, sample: Sample, plan: TrainingPlan, device: torch.device
) -> Prediction:
    """Run the network on one sample. Nothing outside the breast is ever malignant."""
    network.eval()
    image = _to_tensor([sample.image]).to(device)
    with autocast(device, plan.precision):
        reconstruction = network.reconstruct(image).float()
        malignancy = network.subtraction(image, reconstruction).sigmoid()
    return Prediction(
        reconstruction[0, 0].cpu().numpy(),
        np.where(sample.field, malignancy[0, 0].float().cpu().numpy(), np.float32(0)),
    )


def load_network(state: State, plan: TrainingPlan, device: torch.device) -> MalignancyNetwork:
    """Build the plan's network with the given weights on a device.

    Raises:
        WeightsError: A name, shape or dtype differs, or a value is not finite.
    """
    network = MalignancyNetwork(plan.network)
    check_state(state, state_of(network))
    network.load_state_dict(state)
    return network.to(device)


def learning_rate_factor(progress: float) -> float:
    """Return the share of the peak learning rate at ``progress``, 0..1 through the stage."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return max(0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))), 0.001)


class _Batches:
    """A site's batches of one round: tensors made on the fly, in a seeded order."""

    def __init__(
        self,
        samples: Sequence[Sample],
        plan: TrainingPlan,
        stage: Stage,
        turn: Turn,
        make_pair: Callable[[Sample, np.random.Generator], tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self.samples = samples
        self.plan = plan
        self.stage = stage
        self.stage_plan = plan.stage(stage)
        self.turn = turn
        self.make_pair = make_pair

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.samples) / self.stage_plan.batch_size)

    def since(self, start: Position) -> Iterator[tuple[int, int, Batch]]:
        """Yield (epoch, step, batch) of all that is left of the round."""
        for epoch in range(start.epoch, self.stage_plan.local_epochs):
            first = start.step if epoch == start.epoch else 0
            for step, batch in enumerate(self.epoch(epoch, first), first):
                yield epoch, step, batch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield (input, target), each ``(N, 1, S, S)`` float32 in 0..1, from a step on."""
        names = (self.stage, self.turn.site, self.turn.server_round, epoch)
        order = generator(self.plan.seed, "order", *names).permutation(len(self.samples))
        size = self.stage_plan.batch_size
        for start in range(first_step * size, len(order), size):
            indices = [int(i) for i in order[start : start + size]]
            pairs = [
                self.make_pair(self.samples[i], generator(self.plan.seed, "image", *names, i))
                for i in indices
            ]
            inputs, targets = zip(*pairs, strict=True)
            yield _to_tensor(inputs), _to_tensor(targets)

    def progress(self, epoch: int, step: int) -> float:
        """Return how far through the whole stage a step of this round is, 0..1."""
        in_round = (epoch + step / self.steps_per_epoch) / self.stage_plan.local_epochs
        return (self.turn.server_round - 1 + in_round) / self.stage_plan.rounds


def _fit(
    network: MalignancyNetwork,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batches: _Batches,
    device: torch.device,
    on_step: OnStep | None,
    keep: RoundKeeper | None,
) -> TrainingResult:
    """Train one site's share of one round, with a fresh AdamW or one that a kill cut short."""
    if keep and (result := keep.result()):
        return result
    network.train()
    optimiser = torch.optim.AdamW(
        network.parameters(), batches.stage_plan.learning_rate, weight_decay=WEIGHT_DECAY
    )
    count = len(batches.samples)
    start = keep.resume(network, optimiser, count) if keep else Position()
    loss_sum = start.loss_sum
    for epoch, step, (inputs, targets) in batches.since(start):
        factor = learning_rate_factor(batches.progress(epoch, step))
        optimiser.param_groups[0]["lr"] = batches.stage_plan.learning_rate * factor
        with autocast(device, batches.plan.precision):
            loss = loss_of(inputs.to(device), targets.to(device))
        _descend(optimiser, loss)
        loss_sum = (loss_sum if step else 0.0) + float(loss.detach()) * len(inputs)
        if keep:
            keep.step(network, optimiser, Position(epoch, step + 1, loss_sum), count)
        if on_step:
            on_step()
    result = TrainingResult(state_of(network), count, loss_sum / count)
    if keep:
        keep.finish(result)
    return result


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step down the clipped gradient of a loss."""
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], MAX_GRADIENT_NORM)
    optimiser.step()


def _to_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Stack ``(S, S)`` uint16 arrays into ``(N, 1, S, S)`` float32 in 0..1."""
    stacked = np.stack(images)[:, None].astype(np.float32)
    return torch.from_numpy(stacked).div_(FULL_SCALE)
