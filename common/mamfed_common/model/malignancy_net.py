"""The discriminative wrapper (paper, section 2, "Image-wise segmentation", and figure 1).

The U-Net reconstructs healthy tissue; a layer on top subtracts its output from its input; the
difference is the malignancy map. Both stages train this module, so weight names are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from mamfed_common.errors import PlanError
from mamfed_common.model.config import BUILT_IN, NetworkConfig
from mamfed_common.model.unet import UNet
from mamfed_common.runtime.plugins import Group, find_plugin

# Chosen by measurement (docs/decisions/0003-subtraction.md).
INITIAL_GAIN = 10.0
INITIAL_OFFSET = 0.1


class Subtraction(nn.Module):
    """Turn the difference between image and reconstruction into logits.

    The logits are ``gain * (difference - offset)``; gain and offset are learned. The paper does not
    say what comes between the difference and the loss. Here the difference is averaged over a few
    pixels: a network without top skips cannot reproduce the image's finest texture, and without
    averaging that texture would appear in the map. Initially, tissue that is 0.1 brighter than its
    reconstruction has a probability of 0.5.
    """

    def __init__(self, smoothing: int) -> None:
        """Use the initial gain and offset that trained best; average over ``smoothing`` pixels."""
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([INITIAL_GAIN]))
        self.offset = nn.Parameter(torch.tensor([INITIAL_OFFSET]))
        self.smooth = (
            nn.AvgPool2d(smoothing, 1, smoothing // 2, count_include_pad=False)
            if smoothing > 1
            else nn.Identity()
        )

    def forward(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """Return logits of malignancy, ``(N, 1, H, W)``, for images of the same shape in 0..1."""
        difference = self.smooth((image - reconstruction).float())
        return cast(Tensor, self.gain * (difference - self.offset))


class MalignancyNetwork(nn.Module):
    """The U-Net (``backbone``) with the head that ``NetworkConfig.head`` names."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the network with random weights; see :func:`build_network` for seeded ones."""
        super().__init__()
        # An extension has ``forward``; only export to other tools asks for more (``multiple``).
        self.backbone = cast(UNet, backbone_of(config.name)(config))
        self.subtraction = Subtraction(config.smoothing) if config.head == "subtraction" else None

    def reconstruct(self, image: Tensor) -> Tensor:
        """Stage 1: image ``(N, 1, H, W)`` in 0..1 -> healthy tissue, same shape and range."""
        return cast(Tensor, self.backbone(image))

    def forward(self, image: Tensor) -> Tensor:
        """Stage 2: image ``(N, 1, H, W)`` in 0..1 -> logits of malignancy, same shape."""
        return self.explain(image)[0]

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and the reconstruction behind them (None with the direct head)."""
        output = self.reconstruct(image)
        if self.subtraction is None:
            return output, None
        return cast(Tensor, self.subtraction(image, output)), output


NETWORKS: dict[str, Callable[[NetworkConfig], nn.Module]] = {BUILT_IN: UNet}
"""The built-in backbones by name."""


def backbone_of(name: str) -> Callable[[NetworkConfig], nn.Module]:
    """Return what builds the backbone of a name: ``(N, 1, H, W)`` to the same shape.

    Raises:
        PlanError: It is not installed here.
    """
    return cast(
        Callable[[NetworkConfig], nn.Module],
        find_plugin(Group.NETWORKS, name, NETWORKS, PlanError),
    )


def build_network(config: NetworkConfig, seed: int) -> MalignancyNetwork:
    """Build the network with the initial weights that ``seed`` determines.

    The process's own random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MalignancyNetwork(config)
