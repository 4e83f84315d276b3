"""The discriminative wrapper (paper, section 2, "Image-wise segmentation", and figure 1).

The U-Net reconstructs; a layer on top subtracts its output from its input; what is left over is
the malignancy map. Both stages train this one module, so the weights have the same names in both.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mamfed_common.model.unet import NetworkConfig, UNet

# Chosen by measurement (docs/decisions/0003-subtraction.md).
INITIAL_GAIN = 10.0
INITIAL_OFFSET = 0.1


class Subtraction(nn.Module):
    """Turns what the reconstruction left out into logits: ``gain * (difference - offset)``.

    The paper leaves open what stands between the difference and the loss. Here the difference is
    averaged over a few pixels, because a network without top skips cannot redraw the image's
    finest texture and the map would inherit it; gain and offset are learned. At the start, tissue
    that is 0.1 brighter than its reconstruction is even odds.
    """

    def __init__(self, smoothing: int) -> None:
        """Start at the gain and offset that trained best; average over ``smoothing`` pixels."""
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([INITIAL_GAIN]))
        self.offset = nn.Parameter(torch.tensor([INITIAL_OFFSET]))
        self.smooth = (
            nn.AvgPool2d(smoothing, 1, smoothing // 2, count_include_pad=False)
            if smoothing > 1
            else nn.Identity()
        )

    def forward(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """Return logits of malignancy, ``(N, 1, H, W)``, for images of that shape in 0..1."""
        difference = self.smooth((image - reconstruction).float())
        return cast(Tensor, self.gain * (difference - self.offset))


class MalignancyNetwork(nn.Module):
    """The U-Net (``backbone``) and, on top of it, the head that ``NetworkConfig.head`` names."""

    def __init__(self, config: NetworkConfig) -> None:
        """Make the network with random weights; see :func:`build_network` for seeded ones."""
        super().__init__()
        self.backbone = UNet(config)
        self.subtraction = Subtraction(config.smoothing) if config.head == "subtraction" else None

    def reconstruct(self, image: Tensor) -> Tensor:
        """Stage 1: ``(N, 1, H, W)`` in 0..1 -> the healthy tissue it should show, same shape."""
        return cast(Tensor, self.backbone(image))

    def forward(self, image: Tensor) -> Tensor:
        """Stage 2: ``(N, 1, H, W)`` in 0..1 -> logits of malignancy, same shape."""
        return self.explain(image)[0]

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits, and the healthy tissue that they come from; None of a plain U-Net."""
        output = self.reconstruct(image)
        if self.subtraction is None:
            return output, None
        return cast(Tensor, self.subtraction(image, output)), output


def build_network(config: NetworkConfig, seed: int) -> MalignancyNetwork:
    """Build the network with the initial weights that ``seed`` stands for.

    The process's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MalignancyNetwork(config)
