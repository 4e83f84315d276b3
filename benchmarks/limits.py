"""What a training step costs at least on a machine: bytes over bandwidth, operations over peak.

Imported by ``network.py`` and ``gpu.py``; does nothing when run.
"""

from __future__ import annotations

import copy
import statistics

import torch
from harness import take_turns
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mamfed_common.unet import ResidualBlock

MATRIX_SIDE = 4096


def plain(network: nn.Module) -> nn.Module:
    """Copy a network to one whose convolutions are torch's own calls, which can be counted."""
    counted = copy.deepcopy(network)
    for module in counted.modules():
        if isinstance(module, ResidualBlock):
            module.streams = False
    return counted


def bytes_to_move(network: nn.Module, size: int) -> int:
    """Return the bytes that a float32 training step of one image moves at least.

    Each convolution reads its input and writes its output; backward it reads its input and its
    output's gradient and writes its input's gradient. Norms, activations, sums, weights are free.
    """
    moved, counted = 0, plain(network)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += 4 * (3 * inputs[0].numel() + 2 * output.numel())

    for module in counted.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        counted.eval()(torch.zeros(1, 1, size, size))
    return moved


def operations(network: nn.Module, size: int) -> int:
    """Count the floating point operations of a training step of one image: its convolutions'."""
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(plain(network)(torch.zeros(1, 1, size, size)).sum())
    return counter.get_total_flops()


def peak_operations() -> float:
    """Measure the operations a second of a large float32 matrix product on this CPU."""
    left, right = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE)
    seconds = take_turns({"product": lambda: left @ right}, runs=5)["product"]
    return 2 * MATRIX_SIDE**3 / statistics.median(seconds)
