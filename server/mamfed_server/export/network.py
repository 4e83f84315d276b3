"""The network in its exported form: it returns probabilities and uses numerically robust norms.

The weights and their names are those of the checkpoint.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.model.instance_norm import LEAKY_SLOPE, InstanceNorm
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import State
from mamfed_common.model.unet import UNet

IMAGE, MALIGNANCY, RECONSTRUCTION = "image", "malignancy", "reconstruction"


class TwoStepNorm(nn.Module):
    """Instance normalisation that averages along each row first, then over the rows.

    A runtime that sums 1536 x 1536 float32 values one by one loses precision: with onnxruntime's
    InstanceNormalization, or its ReduceMean over both axes, probabilities on real images of
    1536 x 1536 were off by 3e-3; with this module by 4e-6, in the same time
    (``docs/benchmarks.md``).
    """

    def __init__(self, norm: InstanceNorm) -> None:
        """Share the weights of ``norm``."""
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every feature map of ``x``, ``(N, C, H, W)``, over its own H x W."""
        centred = x - _mean(x)
        scale = torch.rsqrt(_mean(centred * centred) + self.eps) * self.weight[:, None, None]
        return centred * scale + self.bias[:, None, None]

    def activated(self, x: Tensor) -> Tensor:
        """Normalise as ``forward`` does, then apply the leaky ReLU."""
        return F.leaky_relu(self(x), LEAKY_SLOPE, inplace=True)


def _mean(x: Tensor) -> Tensor:
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


class ExportNetwork(nn.Module):
    """Map ``(N, 1, H, W)`` in 0..1 to the probability of malignancy and any reconstruction.

    H and W must be multiples of :attr:`multiple`, two at least: nothing is padded inside.
    """

    def __init__(self, network: MalignancyNetwork) -> None:
        """Copy ``network``, which stays unchanged."""
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if isinstance(child, InstanceNorm):
                    setattr(module, name, TwoStepNorm(child))
            if isinstance(module, UNet):
                module.one_by_one = False  # export a graph without a loop

    @property
    def multiple(self) -> int:
        """The number of pixels that height and width must be multiples of."""
        return self.network.backbone.multiple

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``(N, 1, H, W)`` float32: malignancy in 0..1, and the reconstruction."""
        logits, redrawn = self.network.explain(image)
        malignancy = logits.sigmoid()
        return malignancy if redrawn is None else (malignancy, redrawn)


class StackedNetwork(nn.Module):
    """The exported network with a single output, ``(N, channels, H, W)``, for MONAI bundles."""

    def __init__(self, network: ExportNetwork) -> None:
        """Wrap a network; the weights are shared."""
        super().__init__()
        self.export = network

    def forward(self, image: Tensor) -> Tensor:
        """Return malignancy as channel 0 and the reconstruction, if there is one, as channel 1."""
        outputs = self.export(image)
        return outputs if isinstance(outputs, Tensor) else torch.cat(outputs, dim=1)


class ExportModel(NamedTuple):
    """The model to export.

    Attributes:
        network: The checkpoint's network, float32, on the CPU.
        facts: The checkpoint's facts.
        preprocessing: The contents of ``preprocessing.json``.
        painter: The weights at the end of stage 1, which draw healthy tissue; None: no stage 1.
    """

    network: MalignancyNetwork
    facts: CheckpointFacts
    preprocessing: dict[str, object]
    painter: State | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return (MALIGNANCY,) if self.network.subtraction is None else (MALIGNANCY, RECONSTRUCTION)

    @property
    def multiple(self) -> int:
        """The number of pixels that height and width must be multiples of."""
        return self.network.backbone.multiple

    def example(self) -> Tensor:
        """Return two small images of unequal sides, for tracing; their values do not matter."""
        return torch.linspace(0, 1, 12 * self.multiple**2).reshape(
            2, 1, 2 * self.multiple, 3 * self.multiple
        )
