"""Convolutions and norms on bands of rows, for :mod:`mamfed_common.model.streaming`.

Maps are ``(1, C, H, W)``, channels last, float32; sums use double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = 2 << 20
"""Size of a band in its widest map; a band and its intermediate results fit a core's own cache."""
EPS = 1e-5
LEAKY_SLOPE = 0.01

Rows = Callable[[int, int], Tensor]
"""Maps ``(first, last)``, with ``last`` excluded, to those rows: ``(1, C, last - first, W)``."""


class SeparableWeights(NamedTuple):
    """Weights of one separable unit (``unet.SeparableConv``)."""

    depthwise: Tensor
    pointwise: Tensor
    scale: Tensor
    shift: Tensor


class Norm:
    """An instance norm with known mean and deviation, followed by a leaky ReLU."""

    def __init__(self, mean: Tensor, deviation: Tensor, unit: SeparableWeights) -> None:
        """Take ``(C,)`` of each, in double precision."""
        gain = unit.scale.double() / deviation
        self.mean, self.deviation = mean, deviation
        self.gain, self.offset = _wide(gain), _wide(unit.shift.double() - mean * gain)

    def activate(self, band: Tensor) -> Tensor:
        """Apply norm and leaky ReLU to a band ``(1, C, h, W)``."""
        return F.leaky_relu_(torch.addcmul(self.offset, band, self.gain), LEAKY_SLOPE)

    def blame(self, band: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient between norm and leaky ReLU."""
        before = torch.addcmul(self.offset, band, self.gain)
        blamed: Tensor = torch.ops.aten.leaky_relu_backward(gradient, before, LEAKY_SLOPE, False)
        return blamed


class Moments:
    """Mean and deviation of a map, accumulated band by band (Chan, Golub & LeVeque, 1979)."""

    def __init__(self) -> None:
        """Start with no pixel."""
        self.pixels = 0
        self.mean = self.square = torch.zeros((), dtype=torch.double)

    def add(self, band: Tensor) -> None:
        """Add the pixels of a band."""
        pixels = band.shape[-2] * band.shape[-1]
        centre = band.mean((2, 3), keepdim=True)
        spread = band.sub(centre).square_().sum((2, 3)).double()[0]
        shift = centre.double()[0, :, 0, 0] - self.mean
        total = self.pixels + pixels
        self.mean = self.mean + shift * (pixels / total)
        self.square = self.square + spread + shift.square() * (self.pixels * pixels / total)
        self.pixels = total

    def norm(self, unit: SeparableWeights) -> Norm:
        """Return the norm of the whole map."""
        return Norm(self.mean, (self.square / self.pixels + EPS).sqrt(), unit)


def convolve(
    rows: Rows,
    height: int,
    unit: SeparableWeights,
    stride: int,
    y: Tensor,
    moments: Moments | None = None,
) -> None:
    """Write the output of a unit's two convolutions into ``y``."""
    for a, b in bands(y):
        band = y[:, :, a:b]
        _, _, padded = _window(rows, height, stride, a, b)
        middle = _depthwise(padded, unit, stride)
        torch.mm(_pixels(middle), unit.pointwise[:, :, 0, 0].t(), out=_pixels(band))
        if moments:
            moments.add(band)


def backward(
    rows: Rows,
    height: int,
    unit: SeparableWeights,
    stride: int,
    y: Tensor,
    norm: Norm,
    gradient: Tensor,
    add: Callable[[int, int, Tensor], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backpropagate through a unit: pass the input's gradient to ``add``, return the weights'."""
    d_shift = torch.zeros(y.shape[1], dtype=torch.double)
    d_scale, mean = torch.zeros_like(d_shift), _wide(norm.mean)
    for a, b in bands(y):
        band = y[:, :, a:b]
        blamed = norm.blame(band, gradient[:, :, a:b])
        d_shift += blamed.sum((2, 3))[0]
        d_scale += band.sub(mean).mul_(blamed).sum((2, 3))[0]
    d_scale /= norm.deviation
    # gain * (blamed - mean of it - normal * mean of their product), with normal = (y - mean) / dev.
    pixels = y.shape[-2] * y.shape[-1]
    gain = norm.gain.double()[0, :, 0, 0]
    slope = -gain * d_scale / (pixels * norm.deviation)
    level = _wide(-gain * d_shift / pixels - slope * norm.mean)
    steep = _wide(slope)
    d_depthwise = torch.zeros_like(unit.depthwise)
    d_pointwise = torch.zeros_like(unit.pointwise)
    for a, b in bands(y):
        band = y[:, :, a:b]
        blamed = norm.blame(band, gradient[:, :, a:b])
        dy = torch.addcmul(level, band, steep).addcmul_(blamed, norm.gain)
        lo, hi, padded = _window(rows, height, stride, a, b)
        middle = _depthwise(padded, unit, stride)
        d_middle, d_weight = convolution_back(dy, middle, unit.pointwise)
        d_pointwise += d_weight
        d_padded, d_weight = convolution_back(
            d_middle, padded, unit.depthwise, stride, (0, 1), unit.depthwise.shape[0]
        )
        d_depthwise += d_weight
        top = max(0, -lo)
        add(max(0, lo), min(height, hi), d_padded[:, :, top : top + min(height, hi) - max(0, lo)])
    return d_depthwise, d_pointwise, d_scale.float(), d_shift.float()


def _depthwise(padded: Tensor, unit: SeparableWeights, stride: int) -> Tensor:
    groups = unit.depthwise.shape[0]
    return F.conv2d(padded, unit.depthwise, None, stride, (0, 1), groups=groups)


def _window(rows: Rows, height: int, stride: int, a: int, b: int) -> tuple[int, int, Tensor]:
    """Return the input rows of a 3 x 3 convolution's output rows ``a`` to ``b``, zero-padded."""
    lo, hi = a * stride - 1, (b - 1) * stride + 2
    inside = rows(max(0, lo), min(height, hi))
    if lo >= 0 and hi <= height:
        return lo, hi, inside
    return lo, hi, F.pad(inside, (0, 0, max(0, -lo), max(0, hi - height)))


def activated(y: Tensor, norm: Norm) -> Rows:
    """Return the rows of a map after its norm, computed on demand."""
    return lambda first, last: norm.activate(y[:, :, first:last])


def bands(y: Tensor) -> Iterator[tuple[int, int]]:
    """Divide the rows of ``(1, C, H, W)`` into bands of about :data:`BAND_BYTES`."""
    height = max(1, BAND_BYTES // (4 * y.shape[1] * y.shape[-1]))
    for first in range(0, y.shape[-2], height):
        yield first, min(y.shape[-2], first + height)


def convolution_back(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a convolution's input and of its weights."""
    d_x, d_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), groups,
        (True, True, False),
    )  # fmt: skip
    return d_x, d_weight


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve 1 x 1 by a plain matrix product; torch's own choice depends on its thread count."""
    product = _pixels(x) @ weight[:, :, 0, 0].t()
    return product.view(1, *x.shape[2:], -1).permute(0, 3, 1, 2)


def _pixels(x: Tensor) -> Tensor:
    """View ``(1, C, h, W)``, channels last, as ``(h * W, C)``."""
    return x[0].permute(1, 2, 0).reshape(-1, x.shape[1])


def empty_map(unit: SeparableWeights, height: int, width: int) -> Tensor:
    """Return an uninitialised map with a unit's output channels."""
    shape = (1, unit.pointwise.shape[0], height, width)
    return torch.empty(shape, memory_format=torch.channels_last)


def _wide(values: Tensor) -> Tensor:
    return values.float()[None, :, None, None]
