"""Both stages and their evaluation: weights in, weights and metrics out. No federation here.

Reproducible on a CPU: the same weights, samples, plan, names and thread count give the same bits
(``mamfed_common.training.batches`` says what is drawn, and from what).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mamfed_common.metrics.explanation import judge_redrawn
from mamfed_common.metrics.scores import ImageScore, score_image
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.malloc import keep_freed_memory
from mamfed_common.model.state_dict import State, check_state, state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import Batches, RoundContext, loader_threads, to_tensor
from mamfed_common.training.data_parallel import ALONE, ProcessGroup
from mamfed_common.training.device import autocast
from mamfed_common.training.kept_optimizer import OptimizerStateStore
from mamfed_common.training.objective import (
    MAX_GRADIENT_NORM as MAX_GRADIENT_NORM,  # training's own constant
)
from mamfed_common.training.objective import StepLoss, optimizer_step
from mamfed_common.training.repaint import repaint
from mamfed_common.training.round_checkpoint import RoundCheckpointer, RoundPosition
from mamfed_common.training.round_checkpoint import (
    TrainingResult as TrainingResult,  # training's own result
)
from mamfed_common.transforms.sample import Sample

WARM_UP = 0.1
"""Share of a stage over which the learning rate rises to its peak."""
WEIGHT_DECAY = 1e-5

OnStep = Callable[[], None]
OnEpoch = Callable[[int], None]


def train(
    stage: Stage,
    state: State,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    round_context: RoundContext,
    *,
    device: torch.device,
    benign: Sequence[Sample] = (),
    on_step: OnStep | None = None,
    checkpointer: RoundCheckpointer | None = None,
    moments: OptimizerStateStore | None = None,
    team: ProcessGroup = ALONE,
    activation_checkpointing: bool = False,
) -> TrainingResult:
    """Train one site's share of one round of a stage.

    Stage 1 trains the backbone to reconstruct corrupted benign mammograms, stage 2 the whole
    network to find what is malignant, while it goes on reconstructing benign ones.

    Args:
        stage: The stage.
        state: Weights to start from, of the plan's network.
        samples: The site's training images of the stage: benign ones, or malignant ones, of which
            there may be none where it has others that stand beside.
        plan: What to do.
        round_context: Whose turn it is.
        device: Where to do it.
        benign: In stage 2, the site's training images that stand beside (``plan.beside``).
        on_step: Called after each step, for a progress bar.
        checkpointer: Keeps the round on disk. One that was cut short goes on where it was last
            kept, and one that is over gives its result again.
        moments: What AdamW begins with, and where it is kept; None: it begins afresh.
        team: The processes that share each batch, of which this one leads.
        activation_checkpointing: Compute activations again in the backward pass instead of keeping
            them: less memory, more time, the same bits on a CPU.

    Raises:
        WeightsError: ``state`` is not of the plan's network.
    """
    network = load_network(state, plan, device)
    network.backbone.activation_checkpointing = activation_checkpointing
    batches = Batches(samples, plan, stage, round_context, benign, team.share)
    return fit(
        network,
        batches,
        device=device,
        on_step=on_step,
        checkpointer=checkpointer,
        moments=moments,
        team=team,
    )


def evaluate(
    state: State,
    samples: Iterable[Sample],
    plan: TrainingPlan,
    *,
    device: torch.device,
    spacing_mm: Mapping[str, float] | None = None,
    painter: State | None = None,
    on_step: OnStep | None = None,
) -> list[ImageScore]:
    """Score the malignancy map of every sample, in their order, one image at a time.

    Args:
        state: Weights of the plan's network.
        samples: What to score, of any kind.
        plan: Of it, network, precision and threshold matter.
        device: Where to do it.
        spacing_mm: Distance of the grid's pixel centres by image, where it is known.
        painter: Weights at the end of stage 1, which redraw found lesions to be judged; None:
            there are none, and no lesion is.
        on_step: Called after each image.

    Raises:
        WeightsError: ``state`` or ``painter`` is not of the plan's network.
    """
    network = load_network(state, plan, device)
    scores = score_samples(
        network,
        samples,
        plan,
        device=device,
        spacing_mm=spacing_mm,
        painter=None if painter is None else load_network(painter, plan, device),
    )
    found = []
    for score in scores:
        found.append(score)
        if on_step:
            on_step()
    return found


def score_samples(
    network: nn.Module,
    samples: Iterable[Sample],
    plan: TrainingPlan,
    *,
    device: torch.device,
    spacing_mm: Mapping[str, float] | None = None,
    painter: MalignancyNetwork | None = None,
) -> Iterator[ImageScore]:
    """Yield the score of every sample by a network that gives logits, as :func:`evaluate` does."""
    for sample in samples:
        probability = malignancy_of(network, sample, plan, device)
        redrawn = None
        if painter is not None and sample.mask.any():
            marked = probability >= plan.evaluation.threshold
            redrawn = judge_redrawn(sample, repaint(painter, sample, marked, plan, device), marked)
        yield score_image(
            sample.name,
            probability,
            sample.mask,
            plan.evaluation.threshold,
            (spacing_mm or {}).get(sample.name),
            redrawn,
        )


class Prediction(NamedTuple):
    """What a network makes of one image: ``(S, S)`` float32 arrays.

    Attributes:
        reconstruction: What the backbone draws and the head subtracts, about 0..1: darker than
            tissue where something is marked. None of a network that subtracts nothing.
        malignancy: Probability of malignancy, 0..1; 0 outside the breast.
        healthy: The image with healthy tissue where something is marked, 0..1; None without a
            painter, and where nothing is marked.
    """

    reconstruction: np.ndarray | None
    malignancy: np.ndarray
    healthy: np.ndarray | None = None


@torch.no_grad()
def malignancy_of(
    network: nn.Module, sample: Sample, plan: TrainingPlan, device: torch.device
) -> np.ndarray:
    """Return the probability of malignancy by a network that gives logits: ``(S, S)`` float32.

    Nothing outside the breast is ever malignant.
    """
    network.eval()
    image = to_tensor([sample.image]).to(device)
    with autocast(device, plan.precision):
        malignancy = network(image).float().sigmoid()
    return np.where(sample.breast_mask, malignancy[0, 0].cpu().numpy(), np.float32(0))


@torch.no_grad()
def predict(
    network: nn.Module,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    device: torch.device,
    painter: MalignancyNetwork | None = None,
) -> list[Prediction]:
    """Run a network that gives logits on samples of one size, and show why it says what it says.

    Args:
        network: The network, on ``device``.
        samples: The images.
        plan: Of it, precision and threshold matter.
        device: Where to do it.
        painter: The network as stage 1 left it, which draws healthy tissue where something is
            marked.
    """
    network.eval()
    images = to_tensor([sample.image for sample in samples]).to(device)
    with autocast(device, plan.precision):
        if isinstance(network, MalignancyNetwork):
            logits, redrawn = network.explain(images)
        else:
            logits, redrawn = network(images), None
    malignancy = logits.float().sigmoid()[:, 0].cpu().numpy()
    reconstruction = None if redrawn is None else redrawn.float()[:, 0].cpu().numpy()
    predictions = []
    for index, sample in enumerate(samples):
        probability = np.where(sample.breast_mask, malignancy[index], np.float32(0))
        marked = probability >= plan.evaluation.threshold
        healthy = None
        if painter is not None and marked.any():
            healthy = repaint(painter, sample, marked, plan, device)
        drawn = None if reconstruction is None else reconstruction[index]
        predictions.append(Prediction(drawn, probability, healthy))
    return predictions


def load_network(state: State, plan: TrainingPlan, device: torch.device) -> MalignancyNetwork:
    """Build the plan's network with the given weights on a device.

    On a CPU the process keeps freed memory from now on (:mod:`mamfed_common.model.malloc`).

    Raises:
        WeightsError: A name, shape or dtype differs, or a value is not finite.
    """
    if device.type == "cpu":
        keep_freed_memory()
    network = MalignancyNetwork(plan.network)
    check_state(state, state_of(network))
    network.load_state_dict(state)
    return network.to(device)


def learning_rate_factor(progress: float) -> float:
    """Return the share of the peak learning rate at ``progress``, 0..1 through the stage."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return max(0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))), 0.001)


def fit(
    network: nn.Module,
    batches: Batches,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    checkpointer: RoundCheckpointer | None = None,
    moments: OptimizerStateStore | None = None,
    team: ProcessGroup = ALONE,
) -> TrainingResult:
    """Train a network on one round's batches: AdamW is fresh, kept, or one that a kill cut short.

    Args:
        network: On ``device``. It gives logits ``(N, 1, S, S)``; for stage 1 it must also
            ``reconstruct``. Its weights are trained in place.
        batches: The round.
        device: Where to do it.
        on_step: Called after each step.
        on_epoch: Called with an epoch, counted from 0, when it is over. Where a kill cut the round
            short, the epoch under way then may be told twice.
        checkpointer: Keeps the round on disk, see :func:`train`.
        moments: Likewise what AdamW begins and ends with.
        team: The processes that share each batch; all call this with the same round, and end with
            the same weights. They start where the leader is, which alone may have a ``keep`` and
            ``moments``.
    """
    if checkpointer and (result := checkpointer.result()):
        return result
    network.train()
    stage = batches.stage_plan
    loss_of = team.join(StepLoss(network, batches, device))
    optimiser = torch.optim.AdamW(
        network.parameters(), stage.learning_rate, weight_decay=WEIGHT_DECAY
    )
    count = batches.num_examples
    anchor = [parameter.detach().clone() for parameter in network.parameters()]
    if moments:
        moments.restore(optimiser)
    start = checkpointer.resume(network, optimiser, count) if checkpointer else RoundPosition()
    start = team.begin(network, optimiser, start)
    loss_sum = start.loss_sum
    for epoch in range(start.epoch, batches.epochs):
        first = start.step if epoch == start.epoch else 0
        for step, batch in enumerate(batches.epoch(epoch, first, loader_threads(device)), first):
            factor = learning_rate_factor(batches.progress(epoch, step))
            optimiser.param_groups[0]["lr"] = stage.learning_rate * factor
            with autocast(device, batches.plan.precision):
                loss = loss_of(batch)
            optimizer_step(optimiser, loss, anchor, batches.plan.federation.proximal_mu)
            loss_sum = (loss_sum if step else 0.0) + team.mean(loss) * batch.weight
            if checkpointer:
                checkpointer.step(
                    network, optimiser, RoundPosition(epoch, step + 1, loss_sum), count
                )
            if on_step:
                on_step()
        if on_epoch:
            on_epoch(epoch)
            network.train()
    result = TrainingResult(state_of(network), count, loss_sum / batches.weight_per_epoch)
    if moments:  # first: a round that is over is not trained again, and the next one needs them
        moments.keep(optimiser)
    if checkpointer:
        checkpointer.finish(result)
    return result
