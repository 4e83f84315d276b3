"""Compute the least cost of a training step: bytes over bandwidth, operations over peak rate.

Imported by ``network/cpu.py`` and ``network/gpu.py``; not a script.
"""

from __future__ import annotations

import copy
import statistics
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.lib.harness import take_turns

MATRIX_SIDE = 4096


class Work(NamedTuple):
    """Minimum requirements of a float32 training step of one image.

    Attributes:
        moved: Bytes. Each convolution reads its input and writes its output; backward it reads its
            input and its output's gradient and writes its input's gradient. Norms, activations,
            sums and weights are free.
        operations: Floating point operations of the convolutions: as many again backward for the
            input's gradient, and for the weights'.
    """

    moved: int
    operations: int


def work(network: nn.Module, size: int) -> Work:
    """Count the work of a network on one square image of side ``size``."""
    counted, moved, operations = copy.deepcopy(network), 0, 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved, operations
        moved += 4 * (3 * inputs[0].numel() + 2 * output.numel())
        operations += 3 * 2 * output.numel() * module.weight[0].numel()

    for module in counted.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        counted.eval()(torch.zeros(1, 1, size, size))
    return Work(moved, operations)


def peak_operations() -> float:
    """Return the operations per second of a large float32 matrix product on this CPU."""
    left, right = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE)
    seconds = take_turns({"product": lambda: left @ right}, runs=5)["product"]
    return 2 * MATRIX_SIDE**3 / statistics.median(seconds)
