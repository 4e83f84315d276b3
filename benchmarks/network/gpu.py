"""Measure training and inference on a GPU: mamfed beside the peers, alternating in one process.

Usage: python -m benchmarks.network.gpu                  # everything, under 8 minutes on an H100
       python -m benchmarks.network.gpu --profile        # plus the five slowest kernels
       BENCH_RESULTS=/tmp/trial.json OMP_NUM_THREADS=1 \
           python -m benchmarks.network.gpu --device cpu --size 64 --batches 1,2 --runs 2

A training step is forward, the loss of stage 2, backward, clipping and AdamW, on images in GPU
memory. For each variant and batch size it records

- seconds per image and peak allocated memory, beside each peer;
- our seconds beside the limit set by the measured copy bandwidth, if each convolution moves its
  feature maps once and everything else is free (``limits.work``);
- our recomputed activations beside our own bf16;
- inference, and the largest batch on a 16 GB card.

Convolutions in float32 use TF32, torch's default. Compilation is tried at the first batch size
only. Whatever does not fit, does not compile or runs out of time is reported and skipped. Without
CUDA nothing is measured; ``--device cpu`` tests the script.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.lib.harness import record
from benchmarks.lib.limits import work
from benchmarks.network.steps import (
    FAILED,
    LIGHTER,
    OURS,
    VARIANTS,
    Bench,
    Step,
    copy_bandwidth,
    peak_mib_of,
    timed,
)

CARD_BYTES = int(15.5 * 2**30)
"""Memory of a 16 GB card after CUDA's own half GiB."""
LARGEST_BATCH = 64


def compare(bench: Bench, variant: str, batch: int, *, train: bool) -> float:
    """Measure ours and the peers alternately; return our median seconds per step, or FAILED."""
    what = "training step" if train else "inference"
    how = VARIANTS[variant]
    peaks = {
        label: peak_mib_of(bench, label, how, batch, train)
        for label in (OURS, *bench.peers)
        if not bench.late(f"{label}, {variant}, batch {batch}")
    }
    fitting = [label for label, peak in peaks.items() if peak < FAILED]
    seconds = timed(bench, fitting, how, batch, train=train)
    if OURS not in seconds:
        return FAILED
    images_a_second = {n: batch / statistics.median(times) for n, times in seconds.items()}
    print(", ".join(f"{n} {rate:.2f} images/s" for n, rate in images_a_second.items()), flush=True)
    for peer in (label for label in bench.peers if label in seconds):
        ours, theirs = ([s / batch for s in seconds[n]] for n in (OURS, peer))
        name = bench.name(what, variant, batch)
        record(name, ours, theirs, peer_name=peer, unit="s an image")
        if bench.on_gpu:
            name = bench.name(f"peak memory of {what}", variant, batch)
            record(name, [peaks[OURS]], [peaks[peer]], peer_name=peer, unit="MiB")
    return statistics.median(seconds[OURS])


def compare_limit(bench: Bench, variant: str, batch: int, seconds: float, speed: float) -> None:
    """Compare our step with the time set by the copy bandwidth alone."""
    if seconds == FAILED:
        return
    moved = work(bench.networks[OURS], bench.size).moved * batch
    limit = moved * (0.5 if VARIANTS[variant].bfloat16 else 1.0) / speed
    print(f"{limit / seconds:.0%} of the copy bandwidth", flush=True)
    name = bench.name("training step over its limit", variant, batch)
    record(name, [seconds], [limit], peer_name="copy bandwidth", unit="s")


def compare_recomputing(bench: Bench, batch: int) -> None:
    """Compare our step with recomputed activations with our own without them, in bf16."""
    how = VARIANTS["bf16"]
    peaks = [peak_mib_of(bench, label, how, batch, True) for label in (LIGHTER, OURS)]
    seconds = timed(bench, (LIGHTER, OURS), how, batch, train=True)
    if float("inf") in peaks or not seconds:
        return
    peer = "our own bf16"
    name = bench.name("training step", "bf16, activations recomputed", batch)
    record(name, seconds[LIGHTER], seconds[OURS], peer_name=peer, unit="s")
    if bench.on_gpu:
        record(f"peak memory of {name}", peaks[:1], peaks[1:], peer_name=peer, unit="MiB")


def largest_batch(fits: Callable[[int], bool]) -> int:
    """Return the largest batch up to 64 that fits; 0 if a single image does not fit."""
    low, high = 0, 1
    while high <= LARGEST_BATCH and fits(high):
        low, high = high, 2 * high
    while high - low > 1 and low < LARGEST_BATCH:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def compare_largest_batches(bench: Bench) -> None:
    """Find the largest batch of each network on a 16 GB card."""
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, CARD_BYTES / total), bench.device)
    how, found = VARIANTS["bf16"], {}
    for label in (OURS, LIGHTER, *bench.peers):
        if not bench.late(f"largest batch of {label}"):
            found[label] = largest_batch(
                lambda batch, label=label: peak_mib_of(bench, label, how, batch, True) < FAILED
            )
            print(f"{label}: {found[label]} images of {bench.size} in 16 GB, bf16", flush=True)
    torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    for label in (n for n in (OURS, LIGHTER) if found.get(n)):
        for peer in (n for n in bench.peers if found.get(n)):
            name = f"GB an image at the largest batch of 16 GB, bf16, {bench.size}, {bench.place}"
            if label == LIGHTER:
                name += ", activations recomputed"
            record(name, [16 / found[label]], [16 / found[peer]], peer_name=peer, unit="GB")


def profile(bench: Bench, batch: int) -> None:
    """Print the five slowest kernels (on a CPU: operators) of our bf16 step."""
    from torch.profiler import ProfilerActivity, profile

    step = Step(bench, OURS, VARIANTS["bf16"], batch, True)
    activities = [ProfilerActivity.CUDA] if bench.on_gpu else [ProfilerActivity.CPU]
    step()
    with profile(activities=activities) as found:
        for _ in range(3):
            step()
    bench.put_back(OURS)
    cost = "self_device_time_total" if bench.on_gpu else "self_cpu_time_total"
    times: list[tuple[float, str]] = sorted(
        ((float(getattr(e, cost)), str(e.key)) for e in found.key_averages()), reverse=True
    )
    whole = sum(time for time, _ in times)
    for time, name in times[:5]:
        print(f"{time / whole:6.1%} {time / 3000:8.2f} ms a step  {name[:90]}", flush=True)


def run(bench: Bench, variants: Sequence[str], batches: Sequence[int]) -> None:
    """Measure everything, the most important first, until the time is up."""
    speed = copy_bandwidth(bench)
    for variant in (name for name in variants if not VARIANTS[name].compile):
        for batch in batches:
            seconds = compare(bench, variant, batch, train=True)
            compare_limit(bench, variant, batch, seconds, speed)
    for variant in (name for name in variants if name in ("fp32", "bf16")):
        compare(bench, variant, 1, train=False)
    if not bench.late("recomputed activations"):
        compare_recomputing(bench, batches[0])
    if bench.on_gpu:
        compare_largest_batches(bench)
    for variant in (name for name in variants if VARIANTS[name].compile):
        seconds = compare(bench, variant, batches[0], train=True)
        compare_limit(bench, variant, batches[0], seconds, speed)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--batches", type=_numbers, default=[1, 2, 4, 8])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--variants", type=_variants, default=list(VARIANTS))
    parser.add_argument(
        "--minutes", type=float, default=5, help="start no measurement later than this"
    )
    parser.add_argument("--profile", action="store_true", help="print the five slowest kernels")
    return parser.parse_args()


_Raw: Any = argparse.RawDescriptionHelpFormatter


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _variants(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - VARIANTS.keys():
        raise argparse.ArgumentTypeError(f"{sorted(unknown)}: choose from {list(VARIANTS)}")
    return names


def main() -> None:
    arguments = read_arguments()
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured, nothing recorded")
        return
    bench = Bench(arguments)
    run(bench, arguments.variants, arguments.batches)
    if arguments.profile:
        profile(bench, arguments.batches[0])


if __name__ == "__main__":
    main()
