"""Run training steps and inferences of networks on a device, for ``cpu.py`` and ``gpu.py``."""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import monotonic
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.lib.harness import take_turns
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.losses import segmentation_loss
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.plan import TrainingPlan
from mamfed_common.training.objective import optimizer_step
from mamfed_common.training.stages import WEIGHT_DECAY
from mamfed_simulations.study.peers import PEERS

OURS, LIGHTER = "mamfed", "mamfed, activations recomputed"
FAILED = float("inf")
"""Cost that stands for a failed measurement."""


class Variant(NamedTuple):
    """How a network is run."""

    bfloat16: bool = False
    channels_last: bool = False
    compile: bool = False


VARIANTS = {
    "fp32": Variant(),
    "bf16": Variant(bfloat16=True),
    "bf16 channels_last": Variant(bfloat16=True, channels_last=True),
    "bf16 channels_last compile": Variant(bfloat16=True, channels_last=True, compile=True),
}


def _lighter(config: NetworkConfig) -> nn.Module:
    network = build_network(config, 0)
    network.backbone.activation_checkpointing = True
    return network


class Bench:
    """A device, the networks to measure (kept on the CPU), and the remaining time."""

    def __init__(self, arguments: argparse.Namespace, only: Sequence[str] | None = None) -> None:
        """Build the networks, or ``only`` some of them."""
        self.device = torch.device(arguments.device)
        self.size: int = arguments.size
        self.runs: int = arguments.runs
        self.deadline = monotonic() + 60 * arguments.minutes
        self.on_gpu = self.device.type == "cuda"
        if self.on_gpu and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.place = torch.cuda.get_device_name(self.device) if self.on_gpu else "CPU"
        plan = TrainingPlan()
        self.loss = segmentation_loss(plan.losses)
        builders: dict[str, Callable[[], nn.Module]] = {
            OURS: partial(build_network, plan.network, 0),
            **{peer.label: partial(peer.build, self.size, 0) for peer in PEERS.values()},
            LIGHTER: partial(_lighter, plan.network),
        }
        self.networks = {
            label: build() for label, build in builders.items() if only is None or label in only
        }
        self.peers = [peer.label for peer in PEERS.values()]

    def name(self, what: str, variant: str, batch: int) -> str:
        """Return the name of a result."""
        return f"{what}, {variant}, batch {batch}, {self.size} x {self.size}, {self.place}"

    def late(self, what: str) -> bool:
        """Return whether the time is up, and print what is skipped."""
        if monotonic() > self.deadline:
            print(f"skipped, the time is up: {what}", flush=True)
            return True
        return False

    def finish(self) -> None:
        """Wait for the device to finish."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Return unused memory to the device."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def put_back(self, label: str) -> None:
        """Move a network back to the CPU."""
        self.networks[label].zero_grad()
        self.networks[label].to("cpu", memory_format=torch.contiguous_format)

    def autocast(self, variant: Variant) -> AbstractContextManager[object]:
        """Return the context of a variant's number format."""
        if not variant.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Step:
    """A network on the device; calling it runs one step and waits for the device."""

    def __init__(self, bench: Bench, label: str, variant: Variant, batch: int, train: bool) -> None:
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.bench, self.variant, self.train = bench, variant, train
        self.network = bench.networks[label].train(train).to(bench.device, memory_format=layout)
        self.call: Callable[[Tensor], Tensor] = self.network
        if variant.compile:
            self.call = torch.compile(self.network)
        source = torch.Generator().manual_seed(0)
        images = torch.rand(batch, 1, bench.size, bench.size, generator=source)
        self.masks = (images > 0.9).float().to(bench.device)
        self.images = images.to(bench.device, memory_format=layout)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), 1e-3, weight_decay=WEIGHT_DECAY
        )

    def __call__(self) -> None:
        """Run one step."""
        with torch.set_grad_enabled(self.train):
            with self.bench.autocast(self.variant):
                logits = self.call(self.images).float()
                loss = self.bench.loss(logits, self.masks) if self.train else logits
            if self.train:
                optimizer_step(self.optimizer, loss, (), 0.0)
        self.bench.finish()


def peak_mib_of(bench: Bench, label: str, variant: Variant, batch: int, train: bool) -> float:
    """Run a network alone and return its peak allocated memory in MiB.

    Two steps run, because only the second holds the optimizer's moments. Returns 0 without a GPU
    and FAILED if the network cannot run.
    """
    bench.clear()
    try:
        step = Step(bench, label, variant, batch, train)
        step()
        step()
        return torch.cuda.max_memory_allocated(bench.device) / 2**20 if bench.on_gpu else 0.0
    except torch.OutOfMemoryError:
        print(f"{label}, batch {batch}: out of memory", flush=True)
    except Exception as error:  # torch.compile raises many kinds
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
        print(f"{label}, batch {batch}: skipped, {why}", flush=True)
    finally:
        bench.put_back(label)
        torch.compiler.reset()
    return FAILED


def timed(
    bench: Bench, labels: Sequence[str], variant: Variant, batch: int, *, train: bool
) -> dict[str, list[float]]:
    """Time networks alternately, all on the device; return nothing if they do not fit together."""
    bench.clear()
    steps: dict[str, Step] = {}
    try:
        for label in labels:
            steps[label] = Step(bench, label, variant, batch, train)
        return take_turns(steps, runs=bench.runs, warm_up=2)
    except torch.OutOfMemoryError:
        print(f"batch {batch}: the networks do not fit into memory together", flush=True)
        return {}
    finally:
        for label in labels:
            bench.put_back(label)
        torch.compiler.reset()


def copy_bandwidth(bench: Bench) -> float:
    """Return the bytes a second that a copy reads and writes, the median of several."""
    source = torch.zeros(2**28 if bench.on_gpu else 2**24, device=bench.device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        bench.finish()

    seconds = statistics.median(take_turns({"copy": copy}, runs=9, warm_up=2)["copy"])
    speed = 2 * source.numel() * source.element_size() / seconds
    print(f"{bench.place}: copies {speed / 1e9:.0f} GB/s", flush=True)
    return speed
