"""Train one round of a stage at one site: weights in, weights and a loss out. No federation here.

Training is reproducible on a CPU: the same weights, samples, plan, names and thread count give the
same bits (``mamfed_common.training.batches`` lists what is drawn, and from which seed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import Batches, RoundContext, loader_threads
from mamfed_common.training.data_parallel import ALONE, ProcessGroup
from mamfed_common.training.device import autocast
from mamfed_common.training.inference import OnStep, load_network
from mamfed_common.training.objective import StepLoss, optimizer_step
from mamfed_common.training.optimizer_state import OptimizerState
from mamfed_common.training.round_checkpoint import (
    RoundCheckpointer,
    RoundPosition,
    TrainingResult,
)
from mamfed_common.transforms.sample import Sample

WARM_UP = 0.1
"""Fraction of a stage over which the learning rate rises to its peak."""
WEIGHT_DECAY = 1e-5

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
    optimizer_state: OptimizerState | None = None,
    process_group: ProcessGroup = ALONE,
    activation_checkpointing: bool = False,
) -> TrainingResult:
    """Train one round of a stage on one site's images.

    Stage 1 trains the backbone to reconstruct corrupted benign mammograms. Stage 2 trains the whole
    network to segment malignant findings while it continues to reconstruct benign images.

    Args:
        stage: The stage.
        state: Initial weights, of the plan's network.
        samples: The site's training images of the stage: benign in stage 1, malignant in stage 2.
            In stage 2 there may be none if the site has companion images.
        plan: The training plan.
        round_context: The site and the round.
        device: Device to train on.
        benign: Stage 2 only: the site's companion images (``plan.beside``).
        on_step: Called after each step, for a progress bar.
        checkpointer: Saves the round on disk. An interrupted round resumes from the last save; a
            finished one returns its saved result.
        optimizer_state: Restores and saves AdamW's moments; None: AdamW starts fresh.
        process_group: The processes that share each batch; this one is the leader.
        activation_checkpointing: Recompute activations in the backward pass instead of storing
            them: less memory, more time, the same bits on a CPU.

    Raises:
        WeightsError: ``state`` does not fit the plan's network.
    """
    network = load_network(state, plan, device)
    network.backbone.activation_checkpointing = activation_checkpointing
    batches = Batches(samples, plan, stage, round_context, benign, process_group.share)
    return fit(
        network,
        batches,
        device=device,
        on_step=on_step,
        checkpointer=checkpointer,
        optimizer_state=optimizer_state,
        process_group=process_group,
    )


def learning_rate_factor(progress: float) -> float:
    """Return the fraction of the peak learning rate at ``progress``, 0..1 through the stage."""
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
    optimizer_state: OptimizerState | None = None,
    process_group: ProcessGroup = ALONE,
) -> TrainingResult:
    """Train a network on one round's batches, with AdamW.

    The optimizer starts fresh, from the site's last round, or from an interrupted round.

    Args:
        network: On ``device``. Its output is logits ``(N, 1, S, S)``; for stage 1 it must also
            have ``reconstruct``. Its weights are trained in place.
        batches: The batches of the round.
        device: Device to train on.
        on_step: Called after each step.
        on_epoch: Called with the index of each finished epoch, from 0. After a crash, the epoch
            that was interrupted may be reported twice.
        checkpointer: Saves the round on disk, see :func:`train`.
        optimizer_state: Restores and saves AdamW's moments, see :func:`train`.
        process_group: The processes that share each batch. All call this function with the same
            round, start from the leader's weights and end with the same weights. Only the leader
            may have a ``checkpointer`` and an ``optimizer_state``.
    """
    if checkpointer and (result := checkpointer.result()):
        return result
    network.train()
    stage = batches.stage_plan
    step_loss = process_group.join(StepLoss(network, batches, device))
    optimizer = torch.optim.AdamW(
        network.parameters(), stage.learning_rate, weight_decay=WEIGHT_DECAY
    )
    num_examples = batches.num_examples
    global_weights = [parameter.detach().clone() for parameter in network.parameters()]
    if optimizer_state:
        optimizer_state.restore(optimizer)
    position = (
        checkpointer.resume(network, optimizer, num_examples) if checkpointer else RoundPosition()
    )
    position = process_group.begin(network, optimizer, position)
    loss_sum = position.loss_sum
    for epoch in range(position.epoch, batches.epochs):
        first = position.step if epoch == position.epoch else 0
        for step, batch in enumerate(batches.epoch(epoch, first, loader_threads(device)), first):
            factor = learning_rate_factor(batches.progress(epoch, step))
            optimizer.param_groups[0]["lr"] = stage.learning_rate * factor
            with autocast(device, batches.plan.precision):
                loss = step_loss(batch)
            optimizer_step(optimizer, loss, global_weights, batches.plan.federation.proximal_mu)
            loss_sum = (loss_sum if step else 0.0) + process_group.mean(loss) * batch.weight
            if checkpointer:
                checkpointer.step(
                    network, optimizer, RoundPosition(epoch, step + 1, loss_sum), num_examples
                )
            if on_step:
                on_step()
        if on_epoch:
            on_epoch(epoch)
            network.train()
    result = TrainingResult(state_of(network), num_examples, loss_sum / batches.weight_per_epoch)
    if optimizer_state:  # before the result: a finished round never repeats, the next needs these
        optimizer_state.keep(optimizer)
    if checkpointer:
        checkpointer.finish(result)
    return result
