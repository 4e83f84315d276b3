"""One training step: its loss and the optimizer's update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from mamfed_common.model.losses import empty_loss, reconstruction_loss, segmentation_loss
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.plan import Stage
from mamfed_common.training.batches import Batch, Batches

MAX_GRADIENT_NORM = 1.0


class StepLoss(nn.Module):
    """The loss of a batch.

    Where several processes share a batch, the *mean* of their losses is the loss of the batch, and
    the mean of their gradients is its gradient: each term is a mean over images, weighted here by
    the number of images of this process.

    Attributes:
        trained: The module that the stage trains: the backbone in stage 1, the network in stage 2.
    """

    def __init__(self, network: nn.Module, batches: Batches, device: torch.device) -> None:
        """Set up the loss of a round; see :func:`mamfed_common.training.stages.fit`."""
        super().__init__()
        self.trained = network
        if batches.stage is Stage.PRETRAINING:
            assert isinstance(network, MalignancyNetwork), "only our own network reconstructs"
            self.trained = network.backbone
        self._device = device
        self._processes = batches.share.world_size
        self._benign_weight = batches.plan.losses.benign if uses_subtraction(network) else 0.0
        self._empty_weight = batches.plan.losses.empty
        self._reconstruction = reconstruction_loss()
        self._segmentation: nn.Module | None = None
        if batches.stage is Stage.FINETUNING:
            self._segmentation = segmentation_loss(batches.plan.losses)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of this process's share of a batch, a scalar."""
        loss = self._loss_of_images(batch)
        if batch.benign is not None and len(batch.benign):
            companion_loss = self._loss_of_benign(batch.benign, batch.benign_breast_mask)
            if companion_loss is not None:
                loss = loss + companion_loss * self._weight(len(batch.benign), batch.total_benign)
        return loss

    def _loss_of_images(self, batch: Batch) -> Tensor:
        count = len(batch.inputs)
        if not count:  # DDP needs a gradient of every weight from every process: zero here
            return cast(Tensor, sum(p.sum() for p in self.trained.parameters())) * 0.0
        output = self.trained(batch.inputs.to(self._device)).float()
        targets = batch.targets.to(self._device)
        loss = self._reconstruction if self._segmentation is None else self._segmentation
        return cast(Tensor, loss(output, targets)) * self._weight(count, batch.total_images)

    def _loss_of_benign(self, images: Tensor, breast_mask: Tensor | None) -> Tensor | None:
        """Return the loss of images without malignancy: reconstruction and empty target."""
        images, network = images.to(self._device), self.trained
        logits, reconstruction = None, None
        if self._empty_weight and self._benign_weight:
            assert isinstance(network, MalignancyNetwork)
            logits, reconstruction = network.explain(images)
        elif self._empty_weight:
            logits = network(images)
        elif self._benign_weight:
            assert isinstance(network, MalignancyNetwork)
            reconstruction = network.reconstruct(images)
        loss = None
        if reconstruction is not None:
            loss = self._benign_weight * self._reconstruction(reconstruction.float(), images)
        if logits is not None:
            assert breast_mask is not None
            empty = self._empty_weight * empty_loss(logits.float(), breast_mask.to(self._device))
            loss = empty if loss is None else loss + empty
        return loss

    def _weight(self, count: int, total: int) -> float:
        return self._processes * count / total


def uses_subtraction(network: nn.Module) -> TypeGuard[MalignancyNetwork]:
    """Return whether a network's logits come from the difference between input and output."""
    return isinstance(network, MalignancyNetwork) and network.subtraction is not None


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    global_weights: Sequence[Tensor],
    proximal_mu: float,
) -> None:
    """Backpropagate a loss, clip the gradient and update the weights.

    FedProx (Li et al., 2020) adds ``mu / 2`` times the squared distance from the global weights to
    the loss. Its gradient is added here directly, without a graph.

    Args:
        optimizer: An optimizer with one parameter group.
        loss: A scalar.
        global_weights: The weights at the start of the round, in the order of the parameters.
        proximal_mu: FedProx's mu; 0 is FedAvg.
    """
    parameters = optimizer.param_groups[0]["params"]
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    if proximal_mu:
        for parameter, global_weight in zip(parameters, global_weights, strict=True):
            if parameter.grad is None:  # stage 1 does not use the head
                continue
            parameter.grad.add_(parameter.detach() - global_weight, alpha=proximal_mu)
    nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    optimizer.step()
