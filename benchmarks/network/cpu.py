"""Measure a full-size training step and inference on a CPU: mamfed beside the peers.

Usage: python -m benchmarks.network.cpu [--size 1536] [--runs 3] [--threads 2]

A step is forward, the loss of stage 2, backward, clipping and AdamW on one image. Our network runs
as in mamfed, which keeps freed memory (``mamfed_common.model.malloc``); one untimed step before
each turn sets this up. The peers run as in their users' scripts, with the C library's defaults,
and then with freed memory kept as ours. Peak memory is measured over two steps in separate
processes, minus the memory after imports. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
from collections.abc import Callable

import torch

from benchmarks.lib.harness import peak_mib, record, resident_mib, restart_peak, take_turns
from benchmarks.lib.limits import peak_operations, work
from benchmarks.network.steps import LIGHTER, OURS, VARIANTS, Bench, Step, copy_bandwidth
from mamfed_common.model.malloc import keep_freed_memory

FLOAT32, BFLOAT16 = "mamfed, float32", "mamfed, bfloat16"


def default_memory() -> None:
    """Reset glibc's allocator to its state after its first large blocks."""
    library = ctypes.CDLL(None)
    for parameter, value in ((-4, 65536), (-3, 32 << 20), (-1, 64 << 20), (-2, 128 << 10)):
        library.mallopt(parameter, value)
    library.malloc_trim(0)


def settle(step: Callable[[], None]) -> Callable[[], None]:
    """Return a call that prepares our step: keep freed memory, and run one step to allocate it."""

    def ready() -> None:
        keep_freed_memory()
        step()

    return ready


def compare(bench: Bench, *, train: bool, kept: bool) -> list[float]:
    """Measure ours and the peers alternately and record each; return our seconds.

    With ``kept``, the peers keep freed memory too.
    """
    steps = {
        label: Step(bench, label, VARIANTS["fp32"], 1, train) for label in (OURS, *bench.peers)
    }
    before = {label: keep_freed_memory if kept else default_memory for label in steps}
    before[OURS] = settle(steps[OURS])
    # A peer's step takes half a minute. Only kept memory needs a step to be allocated; otherwise
    # the earlier inference serves as warm-up.
    warm_up = 1 if kept or not train else 0
    seconds = take_turns(steps, runs=bench.runs, warm_up=warm_up, before=before)
    what = "training step, float32" if train else "inference"
    for peer in bench.peers:
        name = f"{peer}, memory kept" if kept else peer
        title = f"{what}, {bench.size} x {bench.size}"
        record(title, seconds[OURS], seconds[peer], peer_name=name, unit="s")
    return seconds[OURS]


def compare_own(bench: Bench) -> None:
    """Measure our own variants beside our float32 step."""
    steps = {
        FLOAT32: Step(bench, OURS, VARIANTS["fp32"], 1, True),
        BFLOAT16: Step(bench, OURS, VARIANTS["bf16"], 1, True),
        LIGHTER: Step(bench, LIGHTER, VARIANTS["fp32"], 1, True),
    }
    before = {label: settle(step) for label, step in steps.items()}
    seconds = take_turns(steps, runs=bench.runs, before=before)
    for label, what in ((BFLOAT16, "bfloat16"), (LIGHTER, "activations recomputed")):
        name = f"training step, {what}, {bench.size} x {bench.size}"
        record(name, seconds[label], seconds[FLOAT32], peer_name=FLOAT32, unit="s")


def compare_limit(bench: Bench, seconds: list[float]) -> None:
    """Record our step beside this machine's minimum time for its bytes and its operations."""
    size = bench.size
    needed = work(bench.networks[OURS], size)
    limits = {
        "bytes / copy bandwidth": needed.moved / copy_bandwidth(bench),
        "operations / matrix product": needed.operations / peak_operations(),
    }
    for peer, limit in limits.items():
        name = f"training step, float32, {size} x {size}"
        record(name, seconds, [limit] * len(seconds), peer_name=peer, unit="s")


def compare_memory(bench: Bench) -> None:
    """Record the peak memory of our step beside MONAI's, each in its own process."""
    module, peer, size = __spec__.name, "MONAI BasicUNet", str(bench.size)
    theirs = peak_mib(module, "--peak", peer, "--size", size)
    for label in (OURS, LIGHTER):
        what = "float32" if label == OURS else "activations recomputed"
        ours = peak_mib(module, "--peak", label, "--size", size)
        name = f"peak memory of a training step, {what}, {size} x {size}"
        record(name, [ours], [theirs], peer_name=peer, unit="MiB")


def print_peak(bench: Bench, label: str) -> None:
    """Print the peak memory of two steps in MiB, minus the memory after imports."""
    before = restart_peak()
    if label in (OURS, LIGHTER):
        keep_freed_memory()
    step = Step(bench, label, VARIANTS["fp32"], 1, True)
    step()
    step()
    print(resident_mib("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", metavar="NETWORK", help="only print one network's peak in MiB")
    arguments = parser.parse_args()
    arguments.device, arguments.minutes = "cpu", 60
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    if arguments.peak:
        print_peak(bench, arguments.peak)
        return
    for kept in (False, True):
        compare(bench, train=False, kept=kept)
        ours = compare(bench, train=True, kept=kept)
    print(f"ours: {1 / statistics.median(ours):.2f} training images/s")
    compare_own(bench)
    compare_limit(bench, ours)
    compare_memory(bench)


if __name__ == "__main__":
    main()
