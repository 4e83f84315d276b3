"""Instance norm, and the leaky ReLU after it, on a CPU: fast on small maps, exact on large ones.

Torch's fast kernel adds up the pixels of a map one after the other in float32. At 1536 x 1536 this
lost four digits, enough to move probabilities by 0.04 (``docs/decisions/0022-exports.md``). Large
maps therefore take :class:`_LargeNorm`: it goes through bands of rows that fit a core's cache, and
adds up bands in double precision. Because a band is in the cache anyway, the activation is computed
there too, and recomputed in the backward pass instead of stored.

With ``n`` pixels of mean ``m`` and deviation ``s``, scale ``g`` and shift ``b``, a feature map is

    normal = (x - m) / s,   before = g * normal + b,   out = leaky(before)

and with ``d`` for the gradient of the loss by each of them,

    d_before = d_out * leaky'(before),   d_b = sum(d_before),   d_g = sum(d_before * normal),
    d_x = g / s * (d_before - d_b / n - normal * d_g / n).

The two sums need the whole map, so the backward pass goes through it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPS = 1e-5
LEAKY_SLOPE = 0.01
LARGE_BYTES = 4 << 20
LARGE_PIXELS = 128 * 128
"""Maps below the first limit fit the cache; below the second the fast kernel is exact enough."""
BAND_BYTES = 2 << 20
"""Size of a band; a band and its intermediate results fit a core's own cache."""


class InstanceNorm(nn.InstanceNorm2d):
    """``nn.InstanceNorm2d(affine=True)`` with kernels that are several times faster on a CPU.

    Names and shapes of the weights are unchanged.
    """

    def __init__(self, channels: int) -> None:
        """Create the norm for ``channels`` feature maps, with scale 1 and shift 0."""
        super().__init__(channels, eps=EPS, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every feature map of ``x``, ``(N, C, H, W)``, over its own H x W.

        Batch normalisation over a batch of one *is* instance normalisation, and torch's CPU kernel
        for it reads channels-last tensors without a copy.
        """
        if x.device.type != "cpu":
            return super().forward(x)
        if x.shape[0] == 1:
            return self._normalise_one(x)
        return torch.cat([self._normalise_one(sample) for sample in torch.split(x, 1)])

    def activated(self, x: Tensor) -> Tensor:
        """Normalise as ``forward`` does, then apply the leaky ReLU.

        A large ``x`` is overwritten: without gradients by the result, otherwise by its own gradient
        in the backward pass.
        """
        if not is_large(x):
            return F.leaky_relu(self(x), LEAKY_SLOPE, inplace=True)
        if torch.is_grad_enabled():
            return cast(Tensor, _apply(x, self.weight, self.bias))
        return _Moments(x, self.weight, self.bias).activate(x, x)

    def _normalise_one(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps
        )


def is_large(x: Tensor) -> bool:
    """Return whether ``x``, ``(N, C, H, W)``, is one image whose maps need exact sums on a CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.shape[0] != 1:
        return False
    return x.shape[-2] * x.shape[-1] > LARGE_PIXELS or 4 * x.numel() >= LARGE_BYTES


class _Moments:
    """Mean and deviation of a map, by bands (Chan, Golub & LeVeque, 1979); scale and shift."""

    def __init__(self, x: Tensor, scale: Tensor, shift: Tensor) -> None:
        self.pixels = 0
        self.mean = square = torch.zeros(x.shape[1], dtype=torch.double)
        for band in _bands(x):
            pixels = band.shape[-2] * band.shape[-1]
            centre = band.mean((2, 3), keepdim=True)
            spread = band.sub(centre).square_().sum((2, 3)).double()[0]
            moved, total = centre.double()[0, :, 0, 0] - self.mean, self.pixels + pixels
            self.mean = self.mean + moved * (pixels / total)
            square = square + spread + moved.square() * (self.pixels * pixels / total)
            self.pixels = total
        self.deviation = (square / self.pixels + EPS).sqrt()
        self.gain = scale.double() / self.deviation
        self._factor, self._offset = _wide(self.gain), _wide(shift.double() - self.mean * self.gain)

    def activate(self, x: Tensor, out: Tensor) -> Tensor:
        """Write norm and leaky ReLU of ``x`` to ``out``, which may be ``x``; return ``out``."""
        for band, result in zip(_bands(x), _bands(out), strict=True):
            torch.addcmul(self._offset, band, self._factor, out=result)
            F.leaky_relu_(result, LEAKY_SLOPE)
        return out

    def before(self, band: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient before the leaky ReLU from the one after it."""
        before = torch.addcmul(self._offset, band, self._factor)
        back = torch.ops.aten.leaky_relu_backward(gradient, before, LEAKY_SLOPE, False)
        return cast(Tensor, back)


class _LargeNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.moments = _Moments(x, scale, shift)
        ctx.save_for_backward(x)
        return cast(_Moments, ctx.moments).activate(x, torch.empty_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (x,), moments = ctx.saved_tensors, cast(_Moments, ctx.moments)
        d_shift = torch.zeros(x.shape[1], dtype=torch.double)
        d_scale, mean = torch.zeros_like(d_shift), _wide(moments.mean)
        for band, gradient in zip(_bands(x), _bands(d_out), strict=True):
            before = moments.before(band, gradient)
            d_shift += before.sum((2, 3))[0]
            d_scale += band.sub(mean).mul_(before).sum((2, 3))[0]
        d_scale /= moments.deviation
        # d_x = gain * d_before + steep * x + level: the derivation above, sorted by map.
        steep = -moments.gain * d_scale / (moments.pixels * moments.deviation)
        level = _wide(-moments.gain * d_shift / moments.pixels - steep * moments.mean)
        slope, gain = _wide(steep), _wide(moments.gain)
        for band, gradient in zip(_bands(x), _bands(d_out), strict=True):
            before = moments.before(band, gradient)
            torch.addcmul(level, band, slope, out=band).addcmul_(before, gain)
        return x, d_scale.float(), d_shift.float()  # x now holds its own gradient


_apply: Callable[..., Any] = _LargeNorm.apply


def _bands(x: Tensor) -> tuple[Tensor, ...]:
    """Divide ``(1, C, H, W)`` into bands of about :data:`BAND_BYTES`: views of some rows."""
    return torch.split(x, max(1, BAND_BYTES // (4 * x.shape[1] * x.shape[-1])), dim=2)


def _wide(values: Tensor) -> Tensor:
    return values.float()[None, :, None, None]
