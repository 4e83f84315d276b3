"""The paper's modified U-Net (Tardy & Mateus, section 2, "U-Net for full-size mammograms").

Separable convolutions; a short residual skip around every block; no long skip at the top
level(s), so that the input cannot be copied to the output; instance normalisation; leaky ReLU.
:class:`NetworkConfig` lists the choices that the paper leaves open.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamfed_common.config import ExtensibleConfig
from mamfed_common.model.streaming import stream_block
from mamfed_common.model.streaming_kernels import EPS, LEAKY_SLOPE, SeparableWeights

STREAMED_BYTES = 4 << 20
STREAMED_PIXELS = 128 * 128
"""Maps below the first limit fit the cache; below the second the plain norm is exact enough."""


Channels = Annotated[
    tuple[Annotated[int, Field(le=1 << 16)], ...], Field(min_length=2, max_length=16)
]


class NetworkConfig(ExtensibleConfig):
    """The architecture of a network.

    Attributes:
        name: ``unet``, or an installed extension (entry point group ``mamfed.networks``), which may
            use the other values as it likes.
        channels: Feature channels of each level, from the top (finest) to the bottom.
        first_skip_level: The finest level that keeps its long skip, counted from 0; levels above
            it have none. ``len(channels) - 1`` removes all long skips.
        stem: Side of the pixel-unshuffle block before level 0. 1 means full resolution; 2 and 4
            take about a third and a sixth of the time (``docs/benchmarks.md``).
        head: What stage 2 supervises: ``subtraction``, the difference between input and output
            (the paper's discriminative segmentation), or ``direct``, the output itself (the paper's
            fully supervised baseline).
        smoothing: Side in pixels of the window over which the difference is averaged before it
            becomes logits; odd, and 1 means no averaging.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str = "unet"
    channels: tuple[Annotated[int, Field(le=1 << 16)], ...] = Field(
        default=(32, 64, 128, 256, 256, 256), min_length=2, max_length=16
    )
    first_skip_level: int = Field(default=1, ge=0)
    stem: Literal[1, 2, 4] = 2
    head: Literal["subtraction", "direct"] = "subtraction"
    smoothing: int = Field(default=5, ge=1, le=63)

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if min(self.channels) < 1:
            raise ValueError("channels must all be at least 1")
        if self.smoothing % 2 == 0:
            raise ValueError(f"smoothing {self.smoothing} is even; expected an odd number")
        if self.first_skip_level >= len(self.channels):
            raise ValueError(
                f"first_skip_level {self.first_skip_level} is below the lowest of the "
                f"{len(self.channels)} levels that channels names"
            )
        return self


class InstanceNorm(nn.InstanceNorm2d):
    """``nn.InstanceNorm2d(affine=True)`` with a kernel that is several times faster on a CPU.

    Batch normalisation over a batch of one *is* instance normalisation, and torch's CPU kernel for
    it reads channels-last tensors without a copy. Names and shapes of the weights are unchanged.
    The kernel sums pixels in float32, which is too inexact for large maps; those are streamed
    (:mod:`mamfed_common.model.streaming`).
    """

    def __init__(self, channels: int) -> None:
        """Create the norm for ``channels`` feature maps, with scale 1 and shift 0."""
        super().__init__(channels, eps=EPS, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every feature map of ``x``, ``(N, C, H, W)``, over its own H x W."""
        if x.device.type != "cpu":
            return super().forward(x)
        if x.shape[0] == 1:
            return self._normalise_one(x)
        return torch.cat([self._normalise_one(sample) for sample in torch.split(x, 1)])

    def _normalise_one(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps
        )


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
        x = self.norm(self.pointwise(self.depthwise(x)))
        return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)

    def weights(self) -> SeparableWeights:
        """Return the weights for :func:`mamfed_common.model.streaming.stream_block`."""
        norm = self.norm
        return SeparableWeights(
            self.depthwise.weight, self.pointwise.weight, norm.weight, norm.bias
        )


class ResidualBlock(nn.Module):
    """Two separable units with a short skip around them.

    Attributes:
        streams: Whether large maps on a CPU are processed in bands of rows.
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
        self.streams = True
        self.forgets = False

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Run the block.

        Args:
            x: ``(N, C, H, W)``; H and W divisible by the stride.
            skip: ``(N, C', 2H, 2W)``, appended to the upsampled ``x`` along the channels.

        Returns:
            ``(N, C_out, H / stride, W / stride)``, or ``(N, C_out, 2H, 2W)`` if it enlarges.
        """
        if self.streams and self._large_on_cpu(x):
            return self._stream(x, skip)
        if self.forgets and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._plain, x, skip, use_reentrant=False)
            return again
        return self._plain(x, skip)

    def _plain(self, x: Tensor, skip: Tensor | None) -> Tensor:
        if self.enlarges:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        short: Tensor = self.project(self.shrink(x))
        features: Tensor = self.units(x)
        return features + short

    def _large_on_cpu(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return False
        if torch.is_autocast_enabled("cpu"):  # with half the bytes, plain operations are as fast
            return False
        pixels = x.shape[-2] * x.shape[-1] * (4 if self.enlarges else 1) // self.stride**2
        large = pixels > STREAMED_PIXELS or 4 * pixels * self.out_channels >= STREAMED_BYTES
        return x.shape[0] == 1 and large

    def _stream(self, x: Tensor, skip: Tensor | None) -> Tensor:
        units = [cast(SeparableConv, unit).weights() for unit in self.units]
        project = None if isinstance(self.project, nn.Identity) else self.project.weight
        return stream_block(
            x,
            skip,
            units,
            project,
            stride=self.stride,
            enlarge=self.enlarges,
            forget=self.forgets,
        )


class UNet(nn.Module):
    """The modified U-Net: one channel in, one channel out, any height and width."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the network with torch's default initial weights."""
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
        if x.device.type == "cpu" and x.shape[0] > 1 and self.encoder[0].streams:
            # The CPU norm and the bands of a streamed block each process a single image.
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
