"""Run a residual block on a CPU, one band of rows at a time.

At 1536 x 1536 memory limits a step, not arithmetic: each operation reads and writes whole feature
maps of 75 MB, mostly into pages that the system must first allocate. Here all operations of a block
run on a few rows that stay in the processor's cache. Only the maps whose statistics the norms need
are written out. Once a norm's mean and deviation are known, every value depends only on nearby
rows. The backward pass therefore recomputes what it needs, band by band, instead of storing it: the
input of each pointwise convolution and the activations.

The result equals the plain path of :class:`mamfed_common.model.unet.ResidualBlock` up to rounding,
in less time and half the memory (``docs/decisions/0026-bands-of-rows.md``). Sums over bands use
double precision. One image at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mamfed_common.model.streaming_kernels import (
    Moments,
    SeparableWeights,
    activated,
    backward,
    bands,
    convolution_back,
    convolve,
    empty_map,
    pointwise,
)


class _Sum:
    """A map that accumulates overlapping bands: first in order from the top, then anywhere.

    The map is not initialised with zeros, because untouched pages cost no memory.
    """

    def __init__(self, like: Tensor) -> None:
        self.map = torch.empty_like(like)
        self._written = 0

    def add(self, first: int, last: int, band: Tensor) -> None:
        fresh = max(first, min(self._written, last))
        if fresh > first:
            self.map[:, :, first:fresh] += band[:, :, : fresh - first]
        if fresh < last:
            self.map[:, :, fresh:last] = band[:, :, fresh - first :]
            self._written = last


class _Source:
    """A block's input: one map, or in a decoder a map to upsample by 2 and a skip to append."""

    def __init__(self, x: Tensor, skip: Tensor | None, enlarge: bool) -> None:
        self.x, self.skip, self.enlarge = x, skip, enlarge
        self.times = 2 if enlarge else 1
        self.height, self.width = x.shape[-2] * self.times, x.shape[-1] * self.times
        self.dx: _Sum
        self.dskip: _Sum | None = None

    def rows(self, first: int, last: int) -> Tensor:
        if not self.enlarge:
            return self.x[:, :, first:last]
        start = first // 2
        small = self.x[:, :, start : (last + 1) // 2]
        large = F.interpolate(small, scale_factor=2.0, mode="nearest")
        large = large[:, :, first - 2 * start : last - 2 * start]
        return large if self.skip is None else torch.cat([large, self.skip[:, :, first:last]], 1)

    def begin_gradient(self) -> None:
        self.dx = _Sum(self.x)
        self.dskip = None if self.skip is None else _Sum(self.skip)

    def add_gradient(self, first: int, last: int, gradient: Tensor) -> None:
        if not self.enlarge:
            self.dx.add(first, last, gradient)
            return
        if self.dskip is not None:
            self.dskip.add(first, last, gradient[:, self.x.shape[1] :])
            gradient = gradient[:, : self.x.shape[1]]
        even = F.pad(gradient, (0, 0, first % 2, last % 2))
        self.dx.add(first // 2, (last + 1) // 2, F.avg_pool2d(even, 2, divisor_override=1))


def stream_block(
    x: Tensor,
    skip: Tensor | None,
    units: Sequence[SeparableWeights],
    project: Tensor | None,
    *,
    stride: int,
    enlarge: bool,
    forget: bool,
) -> Tensor:
    """Run a residual block on one image.

    Args:
        x: ``(1, C, H, W)`` float32, channels last.
        skip: ``(1, C', 2H, 2W)``, appended to the upsampled ``x``; None without ``enlarge``.
        units: The block's two units.
        project: Weights ``(C_out, C_in, 1, 1)`` of the short skip; None if it has none.
        stride: Stride of the first unit, 1 or 2.
        enlarge: Whether to upsample ``x`` by 2 first, as in a decoder.
        forget: Store only the input for the backward pass, and recompute both units there.

    Returns:
        ``(1, C_out, H', W')``, channels last.
    """
    weights = [weight for unit in units for weight in unit]
    trains = torch.is_grad_enabled()  # always False inside a Function
    return cast(Tensor, _apply(x, skip, project, stride, enlarge, forget, trains, *weights))


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        skip: Tensor | None,
        project: Tensor | None,
        stride: int,
        enlarge: bool,
        forget: bool,
        trains: bool,
        *weights: Tensor,
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        source = _Source(x, skip, enlarge)
        first, second = SeparableWeights(*weights[:4]), SeparableWeights(*weights[4:])
        y1 = empty_map(first, -(-source.height // stride), -(-source.width // stride))
        y2 = torch.empty_like(y1)
        moments1, moments2 = Moments(), Moments()
        convolve(source.rows, source.height, first, stride, y1, moments1)
        norm1 = moments1.norm(first)
        convolve(activated(y1, norm1), y1.shape[-2], second, 1, y2, moments2)
        norm2 = moments2.norm(second)
        out = torch.empty_like(y2) if trains else y2
        short = _Short(project, stride)
        for a, b in bands(y2):
            band = norm2.activate(y2[:, :, a:b])
            out[:, :, a:b] = band.add_(short.forward(source.rows(a * stride, b * stride)))
        ctx.save_for_backward(x, skip, project, *weights, *(() if forget else (y1, y2)))
        ctx.settings = stride, enlarge, norm1, norm2
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, skip, project, *rest = ctx.saved_tensors
        stride, enlarge, norm1, norm2 = ctx.settings
        source, short = _Source(x, skip, enlarge), _Short(project, stride)
        first, second = SeparableWeights(*rest[:4]), SeparableWeights(*rest[4:8])
        if rest[8:]:
            y1, y2 = rest[8:]
        else:
            y1 = empty_map(first, *dout.shape[-2:])
            convolve(source.rows, source.height, first, stride, y1)
            y2 = torch.empty_like(y1)
            convolve(activated(y1, norm1), y1.shape[-2], second, 1, y2)
        dz1, inner = _Sum(y1), activated(y1, norm1)
        d_second = backward(inner, y1.shape[-2], second, 1, y2, norm2, dout, dz1.add)
        del y2, rest
        source.begin_gradient()
        add_outer = source.add_gradient
        d_first = backward(source.rows, source.height, first, stride, y1, norm1, dz1.map, add_outer)
        for a, b in bands(dout):
            rows = a * stride, b * stride
            source.add_gradient(*rows, short.backward(source.rows(*rows), dout[:, :, a:b]))
        dskip = None if source.dskip is None else source.dskip.map
        return source.dx.map, dskip, short.gradient, *[None] * 4, *d_first, *d_second


_apply: Callable[..., Any] = _Block.apply


class _Short:
    """The short skip around both units: shrink, project, or nothing."""

    def __init__(self, project: Tensor | None, stride: int) -> None:
        self.weight = project
        self.stride = stride
        self.gradient: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return x if self.weight is None else pointwise(x, self.weight)

    def backward(self, x: Tensor, gradient: Tensor) -> Tensor:
        if self.weight is not None:
            x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
            gradient, d_weight = convolution_back(gradient, x, self.weight)
            self.gradient = d_weight if self.gradient is None else self.gradient + d_weight
        if self.stride == 1:
            return gradient
        return F.interpolate(gradient, scale_factor=2.0, mode="nearest").mul_(0.25)
