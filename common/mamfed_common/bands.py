"""Convolutions and norms a band of rows at a time, for :mod:`mamfed_common.streaming`.

Maps are ``(1, C, H, W)``, channels last, float32 or bfloat16; sums are taken in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = 3 << 19
"""A band's size in its widest map: with what is computed from it, it fits a core's own cache."""
EPS = 1e-5
LEAKY_SLOPE = 0.01

Rows = Callable[[int, int], Tensor]
"""From the first row and the one after the last to ``(1, C, last - first, W)``."""


class Unit(NamedTuple):
    """Weights of one separable unit, as :class:`mamfed_common.unet.SeparableConv` has them."""

    depthwise: Tensor
    pointwise: Tensor
    scale: Tensor
    shift: Tensor


class Norm:
    """An instance norm whose mean and deviation are known, and the leaky ReLU behind it."""

    def __init__(self, mean: Tensor, deviation: Tensor, unit: Unit) -> None:
        """Take ``(C,)`` of each, in double precision."""
        gain = unit.scale.double() / deviation
        self.mean, self.deviation = _wide(mean), _wide(deviation.reciprocal())
        self.gain, self.offset = _wide(gain), _wide(unit.shift.double() - mean * gain)

    def activate(self, band: Tensor) -> Tensor:
        """Return what a band ``(1, C, h, W)`` is after norm and leaky ReLU, in its own dtype."""
        normal = torch.addcmul(self.offset, band.float(), self.gain)
        return F.leaky_relu_(normal, LEAKY_SLOPE).to(band.dtype)

    def blame(self, band: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient in front of the leaky ReLU, and the band normalised; float32."""
        band = band.float()
        before = torch.addcmul(self.offset, band, self.gain)
        blamed = torch.ops.aten.leaky_relu_backward(gradient.float(), before, LEAKY_SLOPE, False)
        return blamed, band.sub(self.mean).mul_(self.deviation)


class Moments:
    """Mean and deviation of a map that is seen band by band (Chan, Golub & LeVeque, 1979)."""

    def __init__(self) -> None:
        """Start with no pixel."""
        self.pixels = 0
        self.mean = self.square = torch.zeros((), dtype=torch.double)

    def add(self, band: Tensor) -> None:
        """Add the pixels of a band."""
        band, pixels = band.float(), band.shape[-2] * band.shape[-1]
        centre = band.mean((2, 3), keepdim=True)
        spread = band.sub(centre).square_().sum((2, 3)).double()[0]
        shift = centre.double()[0, :, 0, 0] - self.mean
        total = self.pixels + pixels
        self.mean = self.mean + shift * (pixels / total)
        self.square = self.square + spread + shift.square() * (self.pixels * pixels / total)
        self.pixels = total

    def norm(self, unit: Unit) -> Norm:
        """Return the norm of the whole map."""
        return Norm(self.mean, (self.square / self.pixels + EPS).sqrt(), unit)


def convolve(
    rows: Rows, height: int, unit: Unit, stride: int, y: Tensor, moments: Moments | None = None
) -> None:
    """Fill ``y`` with both convolutions of a unit."""
    for a, b in bands(y):
        band = y[:, :, a:b]
        _, _, padded = _window(rows, height, stride, a, b)
        middle = _depthwise(padded, unit, stride)
        torch.mm(_pixels(middle), unit.pointwise[:, :, 0, 0].t(), out=_pixels(band))
        if moments:
            moments.add(band)


def go_back(
    rows: Rows,
    height: int,
    unit: Unit,
    stride: int,
    y: Tensor,
    norm: Norm,
    gradient: Tensor,
    add: Callable[[int, int, Tensor], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Go back through a unit: hand the gradient of its input on, return that of its weights."""
    d_shift = torch.zeros(y.shape[1], dtype=torch.double)
    d_scale = torch.zeros_like(d_shift)
    for a, b in bands(y):
        blamed, normal = norm.blame(y[:, :, a:b], gradient[:, :, a:b])
        d_shift += blamed.sum((2, 3))[0]
        d_scale += normal.mul_(blamed).sum((2, 3))[0]
    pixels = y.shape[-2] * y.shape[-1]
    by_mean, by_spread = _wide(d_shift / pixels), _wide(d_scale / pixels)
    d_depthwise = torch.zeros_like(unit.depthwise, dtype=torch.float32)
    d_pointwise = torch.zeros_like(unit.pointwise, dtype=torch.float32)
    for a, b in bands(y):
        blamed, normal = norm.blame(y[:, :, a:b], gradient[:, :, a:b])
        blamed.sub_(by_mean).addcmul_(normal, by_spread, value=-1).mul_(norm.gain)
        dy = blamed.to(y.dtype)
        lo, hi, padded = _window(rows, height, stride, a, b)
        middle = _depthwise(padded, unit, stride)
        d_pointwise += outer(dy, middle)
        d_middle = pointwise(dy, unit.pointwise.transpose(0, 1))
        d_padded, d_weight, _ = torch.ops.aten.convolution_backward(
            d_middle, padded, unit.depthwise, None, [stride, stride], [0, 1], [1, 1], False,
            [0, 0], unit.depthwise.shape[0], [True, True, False],
        )  # fmt: skip
        d_depthwise += d_weight
        top = max(0, -lo)
        add(max(0, lo), min(height, hi), d_padded[:, :, top : top + min(height, hi) - max(0, lo)])
    return d_depthwise, d_pointwise, d_scale.float(), d_shift.float()


def _depthwise(padded: Tensor, unit: Unit, stride: int) -> Tensor:
    groups = unit.depthwise.shape[0]
    return F.conv2d(padded, unit.depthwise, None, stride, (0, 1), groups=groups)


def _window(rows: Rows, height: int, stride: int, a: int, b: int) -> tuple[int, int, Tensor]:
    """Return the rows that a 3 x 3 convolution needs for its rows ``a`` to ``b``, 0 outside."""
    lo, hi = a * stride - 1, (b - 1) * stride + 2
    inside = rows(max(0, lo), min(height, hi))
    if lo >= 0 and hi <= height:
        return lo, hi, inside
    return lo, hi, F.pad(inside, (0, 0, max(0, -lo), max(0, hi - height)))


def activated(y: Tensor, norm: Norm) -> Rows:
    """Return the rows of a map behind its norm, computed when asked for."""
    return lambda first, last: norm.activate(y[:, :, first:last])


def bands(y: Tensor) -> Iterator[tuple[int, int]]:
    """Divide the rows of ``(1, C, H, W)`` into bands of about :data:`BAND_BYTES`."""
    height = max(1, BAND_BYTES // (4 * y.shape[1] * y.shape[-1]))
    for first in range(0, y.shape[-2], height):
        yield first, min(y.shape[-2], first + height)


def outer(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a 1 x 1 convolution's weights: ``(C_out, C_in, 1, 1)`` float32."""
    left, right = _pixels(gradient), _pixels(x)
    return (left.t() @ right).float()[:, :, None, None]


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve 1 x 1, by a plain matrix product: torch's own choice depends on its threads."""
    product = _pixels(x) @ weight[:, :, 0, 0].t()
    return product.view(1, *x.shape[2:], -1).permute(0, 3, 1, 2)


def _pixels(x: Tensor) -> Tensor:
    """View ``(1, C, h, W)``, channels last, as ``(h * W, C)``."""
    return x[0].permute(1, 2, 0).reshape(-1, x.shape[1])


def empty_map(like: Tensor, unit: Unit, height: int, width: int) -> Tensor:
    """Return a map of a unit's output channels, not filled yet."""
    shape = (1, unit.pointwise.shape[0], height, width)
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def cast_unit(unit: Unit, dtype: torch.dtype) -> Unit:
    """Return a unit whose convolutions are of a dtype; its norm stays as it is."""
    return unit._replace(depthwise=unit.depthwise.to(dtype), pointwise=unit.pointwise.to(dtype))


def _wide(values: Tensor) -> Tensor:
    return values.float()[None, :, None, None]
