"""The paper's modified U-Net (Tardy & Mateus, section 2, "U-Net for full-size mammograms").

Separable convolutions; a short residual skip around every block; no long skip at the top
level(s), so that the input cannot be copied to the output; instance normalisation; leaky ReLU.
:class:`NetworkConfig` lists the choices that the paper leaves open.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.instance_norm import InstanceNorm


class SeparableConv(nn.Module):
    """Depthwise 3 x 3 convolution, pointwise convolution, instance norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Create the unit; ``stride`` 2 halves height and width, rounding up."""
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = InstanceNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H / stride, W / stride)``."""
        return self.norm.activated(self.pointwise(self.depthwise(x)))


class ResidualBlock(nn.Module):
    """Two separable units with a short skip around them.

    Attributes:
        forgets: Whether the backward pass recomputes everything between input and output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, enlarges: bool = False
    ) -> None:
        """Create the block; ``stride`` 2 halves height and width, ``enlarges`` doubles them."""
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
        self.out_channels = out_channels
        self.stride = stride
        self.enlarges = enlarges
        self.forgets = False

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Run the block.

        Args:
            x: ``(N, C, H, W)``; H and W divisible by the stride.
            skip: ``(N, C', 2H, 2W)``, appended to the upsampled ``x`` along the channels.

        Returns:
            ``(N, C_out, H / stride, W / stride)``, or ``(N, C_out, 2H, 2W)`` if it enlarges.
        """
        if self.forgets and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._run, x, skip, use_reentrant=False)
            return again
        return self._run(x, skip)

    def _run(self, x: Tensor, skip: Tensor | None) -> Tensor:
        if self.enlarges:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        short: Tensor = self.project(self.shrink(x))
        if self.forgets and torch.is_grad_enabled():
            # The backward pass then holds the maps of one unit at a time.
            for unit in self.units:
                x = checkpoint(unit, x, use_reentrant=False)
        else:
            x = self.units(x)
        return x + short


class UNet(nn.Module):
    """The modified U-Net: one channel in, one channel out, any height and width.

    Attributes:
        one_by_one: Whether the images of a batch on a CPU run one after the other, as its norm
            wants them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Build the network with torch's default initial weights."""
        super().__init__()
        channels, stem = config.channels, config.stem
        levels = range(len(channels) - 1)
        self.one_by_one = True
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
            ResidualBlock(
                channels[i] * (2 if i >= config.first_skip_level else 1),
                channels[i],
                enlarges=True,
            )
            for i in levels
        )
        self.head = nn.Conv2d(channels[0], stem * stem, 1)

    @property
    def multiple(self) -> int:
        """Number of pixels to whose multiples heights and widths are padded."""
        return self.stem_side << (len(self.encoder) - 1)

    @property
    def activation_checkpointing(self) -> bool:
        """Whether training recomputes activations to save memory; the result is the same."""
        return bool(self.encoder[0].forgets)

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        for block in (*self.encoder, *self.decoder):
            block.forgets = on

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 1, H, W)`` -> ``(N, 1, H, W)``, unbounded."""
        if x.device.type == "cpu" and x.shape[0] > 1 and self.one_by_one:
            return torch.cat([self(image) for image in torch.split(x, 1)])
        height, width = x.shape[-2:]
        x = F.pixel_unshuffle(pad_to_multiple(x, self.multiple), self.stem_side)
        x = self._decode(*self._encode(x.contiguous(memory_format=torch.channels_last)))
        x = F.pixel_shuffle(self.head(x), self.stem_side)
        return x[..., :height, :width]

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return the lowest level's features, and each level's long skip (None without one)."""
        skips: list[Tensor | None] = []
        for level, block in enumerate(self.encoder):
            x = block(x) if level else self._first(x)
            skips.append(x if level >= self.first_skip_level else None)
        return x, skips[:-1]

    def _first(self, x: Tensor) -> Tensor:
        """Run the stem and the first block, recomputing the stem's map if memory is short."""

        def run(x: Tensor) -> Tensor:
            # With one channel both memory layouts look alike, and with a stem of 1 the whole
            # network would stay in the slower one: a fifth of a step at 128 x 128.
            stemmed = self.stem(x).contiguous(memory_format=torch.channels_last)
            features: Tensor = self.encoder[0](stemmed)
            return features

        if self.activation_checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(run, x, use_reentrant=False)
            return again
        return run(x)

    def _decode(self, x: Tensor, skips: list[Tensor | None]) -> Tensor:
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](self.reduce[level](x), skips[level])
        return x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of ``(N, C, H, W)`` until H and W are multiples.

    Each side becomes at least twice ``multiple``, so that the lowest level has more than one pixel
    to normalise over.
    """
    height, width = x.shape[-2:]
    padded = [max(2, -(-side // multiple)) * multiple for side in (height, width)]
    if padded == [height, width]:
        return x
    return F.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
