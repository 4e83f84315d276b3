"""Measure what spinning threads cost: seconds per training step, on a quiet and a busy machine.

Each line comes from its own process, because libgomp reads its settings once. The busy case adds
two busy loops; the first column is only quiet on an otherwise idle machine.
A busy turn of less than a second flatters whoever spins, so small images need many steps.
Usage: python -m benchmarks.network.spinning_threads [--size 128] [--steps 60] [--spins 0,1000,5000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from mamfed_common.runtime.threads import WAITING

LIMIT_SECONDS = 120


def steps(size: int, count: int, threads: int) -> None:
    """Train in this process; print the median seconds per step, without the first step."""
    import torch

    from mamfed_common.model.config import NetworkConfig
    from mamfed_common.model.malignancy_net import build_network
    from mamfed_common.model.malloc import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    network = build_network(NetworkConfig(), 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    image, seconds = torch.rand(1, 1, size, size), []
    for _ in range(count + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        output = network(image)
        logits = output[0] if isinstance(output, tuple) else output
        (logits**2).mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    print(f"{statistics.median(seconds[1:]):.3f}")


def measured(policy: dict[str, str], options: argparse.Namespace) -> str:
    """Run one process; return its seconds per step, or a note that it took too long."""
    surroundings = {k: v for k, v in os.environ.items() if k not in WAITING}
    numbers = [str(options.size), str(options.steps), str(options.threads)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--child", *numbers],
            env=surroundings | policy,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {LIMIT_SECONDS} s, start included"
    return f"{done.stdout.strip()} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--spins", default=f"0,{WAITING['GOMP_SPINCOUNT']}", help="before sleep")
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        steps(*options.child)
        return
    policies: dict[str, dict[str, str]] = {"torch's default": {}}
    for spins in options.spins.split(","):
        policies[f"{spins} spins"] = WAITING | {"GOMP_SPINCOUNT": spins}
    print(f"{options.size} px, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    for surroundings, loops in (("quiet", 0), ("two busy loops", 2)):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
        try:
            for name, policy in policies.items():
                print(f"{surroundings}, {name}: {measured(policy, options)}", flush=True)
        finally:
            for process in busy:
                process.kill()


if __name__ == "__main__":
    main()
