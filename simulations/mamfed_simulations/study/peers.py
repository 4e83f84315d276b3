"""Build the networks of other projects that ``experiment peers`` compares with mamfed.

All start from random weights; nothing is ever downloaded. Their packages, the extra ``peers``, are
imported only when a network is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mamfed_common.errors import MamfedError
from mamfed_common.model.unet import pad_to_multiple
from mamfed_common.runtime.optional_packages import missing_line

MIN_FEATURE_MAP = 4
"""nnU-Net pools while the side of a feature map is at least twice this."""
MAX_FEATURES = 512


class Peer(NamedTuple):
    """A network of another project.

    Attributes:
        label: Name in reports.
        source: Package and publication.
        make: Builds the bare network for a given image side, with the process's random state.
        multiple: Returns the number of which the input's side must be a multiple.
    """

    label: str
    source: str
    make: Callable[[int], nn.Module]
    multiple: Callable[[int], int]

    def build(self, size: int, seed: int) -> nn.Module:
        """Build the network with initial weights drawn from ``seed``.

        Args:
            size: Side of the images for which it is configured, in pixels.
            seed: Seed of its weights; the process's own random state does not change.

        Returns:
            A module that maps ``(N, 1, H, W)`` in 0..1, of any size, to logits of that shape.

        Raises:
            MamfedError: Its package is not installed.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return _Padded(self.make(size), self.multiple(size))
            except ImportError as error:
                name = (error.name or self.label).partition(".")[0]
                raise MamfedError(f"{self.label}: {missing_line(name, 'peers')}") from None


class _Padded(nn.Module):
    """Pad the input to the required multiple by repeating its edge, and crop the logits."""

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(pad_to_multiple(image, self.multiple))
        return logits[..., : image.shape[-2], : image.shape[-1]]


def _basic_unet(size: int) -> nn.Module:
    from monai.networks.nets import BasicUNet

    network: nn.Module = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1)
    return network


def _smp_resnet34(size: int) -> nn.Module:
    _declare_torchvision_operators()
    from segmentation_models_pytorch import Unet

    network: nn.Module = Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
    return network


def _plain_conv_unet(size: int) -> nn.Module:
    """Return the network that nnU-Net v2 plans for 2D patches, without deep supervision."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = _poolings(size) + 1
    settings: dict[str, Any] = {
        "conv_op": nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [1] + [2] * (stages - 1),
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "features_per_stage": [min(32 * 2**stage, MAX_FEATURES) for stage in range(stages)],
        "conv_bias": True,
        "norm_op": nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": False,
    }
    network: nn.Module = PlainConvUNet(input_channels=1, n_stages=stages, num_classes=1, **settings)
    return network


def _poolings(size: int) -> int:
    """Return nnU-Net's number of poolings: 6 at 256 pixels, 7 at 512, 8 at 1536."""
    poolings = 0
    while size / 2**poolings >= 2 * MIN_FEATURE_MAP:
        poolings += 1
    return poolings


def _declare_torchvision_operators() -> None:
    """Make torchvision importable if its compiled operators do not load, as with a CPU torch.

    smp needs timm, and timm needs torchvision, whose PyPI wheel (0.28) is linked to CUDA. On import
    it registers shapes for two operators, which fails if they are not declared. smp uses neither.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", arguments)


PEERS: dict[str, Peer] = {
    "basicunet": Peer(
        "MONAI BasicUNet",
        "monai 1.x; Cardoso et al., 2022; after Falk et al., 2019",
        _basic_unet,
        lambda size: 16,
    ),
    "smp-resnet34": Peer(
        "smp.Unet(resnet34)",
        "segmentation-models-pytorch 0.6; Iakubovskii, 2019; random weights",
        _smp_resnet34,
        lambda size: 32,
    ),
    "plainconvunet": Peer(
        "nnU-Net PlainConvUNet",
        "dynamic-network-architectures 0.4; Isensee et al., 2021; our optimiser and budget, "
        "no deep supervision",
        _plain_conv_unet,
        lambda size: int(2 ** _poolings(size)),
    ),
}
