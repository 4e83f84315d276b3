"""Averaging updates: our running mean beside Flower's own aggregation, in one process.

Usage: python benchmarks/aggregation.py [--millions 30] [--sites 10]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from mamfed_server.aggregation import RunningMean


def update(parameters: int, seed: int) -> RecordDict:
    """Make one site's reply as it comes off the wire."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(parameters, dtype=np.float32)
    arrays = {f"w{i}": Array(part.copy()) for i, part in enumerate(np.array_split(values, 30))}
    return RecordDict(
        {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": seed + 1})}
    )


def running_mean(parameters: int, sites: int) -> None:
    mean = RunningMean()
    for seed in range(sites):
        record = update(parameters, seed)["arrays"]
        mean.add({k: torch.from_numpy(v.numpy()) for k, v in record.items()}, seed + 1)
    mean.result()


def flowers_own(parameters: int, sites: int) -> None:
    replies = [update(parameters, seed) for seed in range(sites)]
    aggregate_arrayrecords(replies, "num-examples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=30)
    parser.add_argument("--sites", type=int, default=10)
    arguments = parser.parse_args()
    parameters = int(arguments.millions * 1e6)
    results = {}
    for name, aggregate in (("running mean", running_mean), ("Flower's own", flowers_own)):
        tracemalloc.start()
        started = time.perf_counter()
        aggregate(parameters, arguments.sites)
        seconds = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        results[name] = (seconds, peak)
    print(f"{arguments.sites} updates of {parameters:,} float32, making them included")
    for name, (seconds, peak) in results.items():
        print(f"{name:<14} {seconds:6.2f} s   peak of NumPy's memory {peak:7.0f} MiB")
    ratio = results["Flower's own"][1] / results["running mean"][1]
    print(f"Flower's own takes {ratio:.1f} x the memory")


if __name__ == "__main__":
    main()
