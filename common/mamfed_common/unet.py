"""The paper's modified U-Net (Tardy & Mateus, section 2, "U-Net for full-size mammograms").

Separable convolutions; a short residual skip around every block; no long skip at the top
level(s), so that the input cannot be copied to the output; instance normalisation; leaky ReLU.
What the paper leaves open is named in :class:`NetworkConfig`.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mamfed_common.config import Config

LEAKY_SLOPE = 0.01


class NetworkConfig(Config):
    """The choices that make one U-Net different from another.

    Attributes:
        channels: Feature channels of each level, from the top (finest) to the bottom.
        first_skip_level: The finest level that keeps its long skip, counted from 0; levels above
            it have none. ``len(channels) - 1`` removes all long skips.
        stem: Side of the pixel-unshuffle block in front of level 0. 1 works at full resolution;
            2 and 4 cost about a third and a sixth of the time (``docs/benchmarks.md``).
        head: What stage 2 supervises: ``subtraction``, the difference between input and output
            (the paper's discriminative segmentation), or ``direct``, the output itself (its fully
            supervised baseline).
        smoothing: Side of the window, in pixels, over which the difference is averaged before it
            becomes logits; 1 does not.
    """

    channels: tuple[int, ...] = Field(default=(32, 64, 128, 256, 256, 256), min_length=2)
    first_skip_level: int = Field(default=1, ge=0)
    stem: Literal[1, 2, 4] = 2
    head: Literal["subtraction", "direct"] = "subtraction"
    smoothing: int = Field(default=5, ge=1, le=63)

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if min(self.channels) < 1:
            raise ValueError("channels must all be at least 1")
        if self.smoothing % 2 == 0:
            raise ValueError(f"smoothing {self.smoothing} is even; a window has a middle pixel")
        if self.first_skip_level >= len(self.channels):
            raise ValueError(
                f"first_skip_level {self.first_skip_level} is below the lowest of the "
                f"{len(self.channels)} levels that channels names"
            )
        return self


class InstanceNorm(nn.InstanceNorm2d):
    """``nn.InstanceNorm2d(affine=True)``, by kernels that are several times faster on a CPU.

    Batch normalisation over a batch of one *is* instance normalisation, and torch's CPU kernel for
    it reads channels-last tensors without a copy. Names and shapes of the weights are unchanged.

    That kernel adds up pixel after pixel in float32: at 1536 x 1536 probabilities were up to 0.04
    off. Training does not mind. Without gradients the sums are taken row by row, for the same
    answer as a GPU's and an export's (``docs/decisions/0022-exports.md``).
    """

    def __init__(self, channels: int) -> None:
        """Make the norm of ``channels`` feature maps, scale 1 and shift 0."""
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every feature map of ``x``, ``(N, C, H, W)``, over its own H x W.

        On a CPU and without gradients, ``x`` is overwritten.
        """
        if x.device.type != "cpu":
            return super().forward(x)
        if x.shape[0] == 1:
            return self._normalise_one(x)
        return torch.cat([self._normalise_one(sample) for sample in torch.split(x, 1)])

    def _normalise_one(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            mean = variance = None
        else:
            x, mean, variance = _centred(x)
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, mean is None, momentum=0.0, eps=self.eps
        )


def _centred(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take a coarse mean off ``x``, and return each channel's mean and variance, summed by row.

    Args:
        x: ``(1, C, H, W)``, overwritten: near 0, its squares keep their digits.

    Returns:
        ``x``, and two ``(C,)``.
    """
    x.sub_(x[:, :, ::8, ::8].mean((2, 3), keepdim=True))
    rows = x[0].permute(1, 2, 0)
    pixels = rows.shape[0] * rows.shape[1]
    mean = rows.sum(1).sum(0) / pixels
    square = torch.linalg.vector_norm(rows, dim=1).square().sum(0) / pixels
    return x, mean, square - mean.square()


class SeparableConv(nn.Module):
    """Depthwise 3 x 3 convolution, pointwise convolution, instance norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Make one unit; ``stride`` 2 halves height and width, rounding up."""
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = InstanceNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H / stride, W / stride)``."""
        x = self.norm(self.pointwise(self.depthwise(x)))
        return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """Two separable units and the short skip around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Make a block; ``stride`` 2 makes it a down-sampling one."""
        super().__init__()
        self.units = nn.Sequential(
            SeparableConv(in_channels, out_channels, stride),
            SeparableConv(out_channels, out_channels),
        )
        self.shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.project = (
            nn.Conv2d(in_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H / stride, W / stride)``; H, W divisible by it."""
        short: Tensor = self.project(self.shrink(x))
        features: Tensor = self.units(x)
        return features + short


class UNet(nn.Module):
    """The modified U-Net: one channel in, one channel out, any height and width."""

    def __init__(self, config: NetworkConfig) -> None:
        """Make the network of ``config`` with torch's default initial weights."""
        super().__init__()
        channels, stem = config.channels, config.stem
        levels = range(len(channels) - 1)
        self.stem_side = stem
        self.first_skip_level = config.first_skip_level
        self.stem = nn.Conv2d(stem * stem, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            [
                ResidualBlock(channels[0], channels[0]),
                *(ResidualBlock(channels[i], channels[i + 1], stride=2) for i in levels),
            ]
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(channels[i + 1], channels[i], 1, bias=False) for i in levels
        )
        self.decoder = nn.ModuleList(
            ResidualBlock(channels[i] * (2 if i >= config.first_skip_level else 1), channels[i])
            for i in levels
        )
        self.head = nn.Conv2d(channels[0], stem * stem, 1)

    @property
    def multiple(self) -> int:
        """Heights and widths are padded to a multiple of this many pixels."""
        return self.stem_side << (len(self.encoder) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 1, H, W)`` -> ``(N, 1, H, W)``, unbounded."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        x = self.stem(F.pixel_unshuffle(x, self.stem_side))
        x = self._decode(*self._encode(x.contiguous(memory_format=torch.channels_last)))
        x = F.pixel_shuffle(self.head(x), self.stem_side)
        return x[..., :height, :width]

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return the lowest level's features, and what each level passes on by its long skip."""
        skips: list[Tensor | None] = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            skips.append(x if level >= self.first_skip_level else None)
        return x, skips[:-1]

    def _decode(self, x: Tensor, skips: list[Tensor | None]) -> Tensor:
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(self.reduce[level](x), scale_factor=2.0, mode="nearest")
            skip = skips[level]
            x = self.decoder[level](x if skip is None else torch.cat([x, skip], dim=1))
        return x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of ``(N, C, H, W)`` until H and W are multiples.

    At least two multiples each way, so that the lowest level has more than one pixel to
    normalise over.
    """
    height, width = x.shape[-2:]
    padded = [max(2, -(-side // multiple)) * multiple for side in (height, width)]
    if padded == [height, width]:
        return x
    return F.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
