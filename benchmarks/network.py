"""One training step at 1536 x 1536: our U-Nets beside the peers, in one process.

Usage: python benchmarks/network.py [--size 1536] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from mamfed_common.unet import InstanceNorm, NetworkConfig, UNet
from mamfed_simulations.peers import PEERS


class StockNormUNet(UNet):
    """Our U-Net with torch's own InstanceNorm2d, to show what the faster kernel brings."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, InstanceNorm):
                    setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))


def step_seconds(network: nn.Module, image: torch.Tensor) -> float:
    """Time forward and backward of one image."""
    started = time.perf_counter()
    loss = network(image).square().mean()
    torch.autograd.backward(loss)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    full = NetworkConfig(channels=(16, 32, 64, 128, 256, 256, 256), first_skip_level=2, stem=1)
    quarter = NetworkConfig(channels=(64, 128, 256, 256, 256), first_skip_level=0, stem=4)
    networks: dict[str, nn.Module] = {
        "ours, stem 2 (default)": UNet(NetworkConfig()),
        "ours, stem 2, torch's InstanceNorm2d": StockNormUNet(NetworkConfig()),
        "ours, stem 1": UNet(full),
        "ours, stem 4": UNet(quarter),
        **{peer.label: peer.build(arguments.size, 0) for peer in PEERS.values()},
    }
    image = torch.rand(1, 1, arguments.size, arguments.size)
    for network in networks.values():
        step_seconds(network, image)
    seconds = {name: float("inf") for name in networks}
    for _ in range(arguments.repeats):
        for name, network in networks.items():
            seconds[name] = min(seconds[name], step_seconds(network, image))
    ours = seconds["ours, stem 2 (default)"]
    print(f"forward + backward, 1 x 1 x {arguments.size} x {arguments.size}, float32")
    for name, value in seconds.items():
        print(f"{name:<38} {value:7.2f} s   {value / ours:5.2f} x the default")


if __name__ == "__main__":
    main()
