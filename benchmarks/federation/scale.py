"""Measure the cost of a round by number of sites: 10, 100 and 1,000, in process and on Ray.

Usage: python -m benchmarks.federation.scale [--sites 10 100 1000] [--ray-sites 10 100 300]

The server is the real one: its round loop, checks, updates on disk, running mean and checkpoints.
The sites (``scale_sites.py``) answer with weights of the default network, 1.5 million parameters,
and train by changing every weight a little. Each measurement runs in its own process, so that its
peak memory is its own; on Ray it is the server's, without Ray's workers. A round lasts from the end
of the previous one to its own end; the first does not count. Time and memory are fitted as
``a + b N``. Ray defaults to at most 300 sites, so that everything takes under five minutes;
``scale_link.py`` measures the share of a real listener.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from mamfed_common.runtime import terminal

terminal.set_environment()

import torch  # noqa: E402

from benchmarks.federation.scale_sites import expected, site_app  # noqa: E402
from benchmarks.lib.harness import run_module  # noqa: E402
from mamfed_common.plan import FederationPlan, FinetuningPlan, StagePlan, TrainingPlan  # noqa: E402
from mamfed_server.run.run import Job, run_job  # noqa: E402
from mamfed_simulations.federation.engine import Engine  # noqa: E402
from mamfed_simulations.federation.in_process import InProcessTransport  # noqa: E402
from mamfed_simulations.federation.runner import run_on_ray  # noqa: E402

ROUNDS = {10: 6, 100: 3}
"""Number of rounds by maximum number of sites; two rounds beyond."""


class Measured(NamedTuple):
    """A run: its number of sites, seconds of its median round, peak memory of its process."""

    sites: int
    seconds: float
    mib: float


def measure(engine: Engine, sites: int) -> Measured:
    """Run a federation in this process."""
    torch.set_num_threads(1)
    rounds = next((count for most, count in ROUNDS.items() if sites <= most), 2)
    ends: list[float] = []
    plan = TrainingPlan(
        image_size=64,
        pretraining=StagePlan(rounds=rounds, learning_rate=1e-3, quorum=sites),
        finetuning=FinetuningPlan(rounds=0, learning_rate=1e-3),
        federation=FederationPlan(max_update_norm_ratio=100, clip_update_norm_ratio=100),
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            plan=plan,
            folder=Path(folder) / "run",
            num_nodes=sites,
            on_round=lambda record: ends.append(time.monotonic()),
        )
        if engine is Engine.RAY:
            run_on_ray(site_app(), job, threads=1)
        else:
            run_job(job, InProcessTransport(site_app(), sites))
    seconds = median(later - sooner for sooner, later in pairwise(ends))
    return Measured(sites, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def in_own_process(engine: Engine, sites: int) -> Measured:
    """Measure in a new process."""
    output = run_module(__spec__.name, "--measure", str(engine), "--sites", str(sites))
    return Measured(*json.loads(output.splitlines()[-1]))


def fit(sites: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """Fit ``a + b N`` by least squares of relative errors; return ``a``, ``b`` and the worst error.

    With absolute errors, the largest number of sites alone would decide.
    """
    n, y = np.array(sites, dtype=float), np.array(values)
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / y, n / y], axis=1), np.ones(len(y)), rcond=None)
    return float(a), float(b), float(np.abs((a + b * n) / y - 1).max())


def show(engine: Engine, found: Sequence[Measured]) -> None:
    """Print a fit of each quantity."""
    sites = [m.sites for m in found]
    for name, unit, values in (
        ("a round", "s", [m.seconds for m in found]),
        ("peak memory", "MiB", [m.mib for m in found]),
    ):
        a, b, worst = fit(sites, values)
        print(
            f"{engine}: {name} = {a:.3g} + {b:.3g} N {unit}, off by {100 * worst:.0f} % at most",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sites", type=int, nargs="+", default=[10, 100, 1000], help="Numbers of sites in process."
    )
    parser.add_argument(
        "--ray-sites", type=int, nargs="*", default=[10, 100, 300], help="Numbers of sites on Ray."
    )
    parser.add_argument("--measure", choices=[str(e) for e in Engine], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Engine(given.measure), given.sites[0])))
        return
    megabytes = sum(t.nbytes for t in expected().values()) / 1e6
    print(f"weights of {megabytes:.1f} MB from each site")
    for engine, counts in ((Engine.PROCESS, given.sites), (Engine.RAY, given.ray_sites)):
        found = []
        for sites in counts:
            found.append(in_own_process(engine, sites))
            print(
                f"{engine}: {sites:5} sites  {found[-1].seconds:7.2f} s a round  "
                f"{found[-1].mib:5.0f} MiB",
                flush=True,
            )
        if len(found) > 2:
            show(engine, found)


if __name__ == "__main__":
    main()
