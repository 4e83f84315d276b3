"""The size of the weights that a plan's messages carry, counted without building the network.

A coordinator needs it before any weights: is there room for the checkpoints, how large may an
answer be? It must not import torch for that. ``tests/unit/common/plan/test_weights_size.py``
compares the count with the built network (``mamfed_common/model/unet.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from mamfed_common.model.config import BUILT_IN, NetworkConfig
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.plan.training_plan import TrainingPlan

FLOAT32 = 4
KERNEL = 3 * 3
NORM = 2
"""Values of a norm per channel: scale and shift."""
UNITS = 2
"""Separable units of a block."""


def weights_bytes(plan: TrainingPlan) -> int:
    """Return the bytes of a plan's weights, norms by group included.

    A network of another package is built, which imports torch.

    Raises:
        PlanError: The network is not installed here.
    """
    network = plan.network
    if network.name != BUILT_IN:
        return sum(tensor.nbytes for tensor in expected_state(plan).values())
    norms = sum(UNITS * NORM * out for _, out in _blocks(network))
    return FLOAT32 * (parameters_of(network) + len(plan.federation.norm_groups) * norms)


def parameters_of(network: NetworkConfig) -> int:
    """Return the number of parameters of a built-in network."""
    channels, pixels = network.channels, network.stem**2
    stem = KERNEL * pixels * channels[0] + channels[0]
    blocks = sum(_block(*ends) for ends in _blocks(network))
    reduce = sum(above * below for above, below in pairwise(channels))
    head = pixels * channels[0] + pixels
    gain_and_offset = 2 if network.head == "subtraction" else 0
    return stem + blocks + reduce + head + gain_and_offset


def _blocks(network: NetworkConfig) -> Iterator[tuple[int, int]]:
    """Yield the channels that each residual block takes and gives, down and up again."""
    channels = network.channels
    yield channels[0], channels[0]
    yield from pairwise(channels)
    for level, out in enumerate(channels[:-1]):
        yield out * (2 if level >= network.first_skip_level else 1), out


def _block(channels: int, out: int) -> int:
    project = channels * out if channels != out else 0
    return _unit(channels, out) + _unit(out, out) + project


def _unit(channels: int, out: int) -> int:
    """Count a depthwise convolution, a pointwise one, and a norm."""
    return KERNEL * channels + channels * out + NORM * out
