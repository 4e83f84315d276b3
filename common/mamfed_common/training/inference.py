"""Inference: malignancy maps, their scores, and redrawn tissue; no training."""

from __future__ import annotations

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
from mamfed_common.plan import TrainingPlan
from mamfed_common.training.batches import to_tensor
from mamfed_common.training.device import autocast
from mamfed_common.training.repaint import repaint
from mamfed_common.transforms.sample import Sample

OnStep = Callable[[], None]


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
    """Score the malignancy map of every sample, in order, one image at a time.

    Args:
        state: Weights of the plan's network.
        samples: Images to score, with malignancy or without.
        plan: The plan, for its network, precision and threshold.
        device: Device to run on.
        spacing_mm: Distance in mm between pixel centres of the grid, by image, where known.
        painter: Weights at the end of stage 1, which redraw the lesions found; None skips that.
        on_step: Called after each image.

    Raises:
        WeightsError: ``state`` or ``painter`` does not fit the plan's network.
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
    results = []
    for score in scores:
        results.append(score)
        if on_step:
            on_step()
    return results


def score_samples(
    network: nn.Module,
    samples: Iterable[Sample],
    plan: TrainingPlan,
    *,
    device: torch.device,
    spacing_mm: Mapping[str, float] | None = None,
    painter: MalignancyNetwork | None = None,
) -> Iterator[ImageScore]:
    """Yield the score of every sample, as :func:`evaluate` does, for any network with logits."""
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
    """A network's results for one image, ``(S, S)`` float32 arrays.

    Attributes:
        reconstruction: The backbone's output, which the head subtracts, about 0..1; darker than
            tissue in marked regions. None if the network subtracts nothing.
        malignancy: Probability of malignancy, 0..1; 0 outside the breast.
        healthy: The image with its marked regions repainted as healthy tissue, 0..1; None without a
            painter or a marked region.
    """

    reconstruction: np.ndarray | None
    malignancy: np.ndarray
    healthy: np.ndarray | None = None


@torch.no_grad()
def malignancy_of(
    network: nn.Module, sample: Sample, plan: TrainingPlan, device: torch.device
) -> np.ndarray:
    """Return the probability of malignancy, ``(S, S)`` float32, from a network with logits.

    The probability is 0 outside the breast.
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
    """Run a network with logits on samples of equal size, and explain what it marks.

    Args:
        network: The network, on ``device``.
        samples: The images.
        plan: The plan, for its precision and threshold.
        device: Device to run on.
        painter: The network with the weights at the end of stage 1, which repaints marked regions.
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

    On a CPU the process keeps freed memory from then on (:mod:`mamfed_common.model.malloc`).

    Raises:
        WeightsError: A name, shape or dtype differs, or a value is not finite.
    """
    if device.type == "cpu":
        keep_freed_memory()
    network = MalignancyNetwork(plan.network)
    check_state(state, state_of(network))
    network.load_state_dict(state)
    return network.to(device)
