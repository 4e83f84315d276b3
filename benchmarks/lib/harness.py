"""Measure mamfed and its peers alternately in one process, and record medians.

Each result is appended to ``benchmarks/results.json``, from which ``page.py`` writes the tables of
``docs/benchmarks.md``:

``{"name", "ours", "peer", "peer_name", "unit", "ratio", "runs"}``

``ours`` and ``peer`` are medians of costs (seconds, MiB: less is better) in ``unit``, ``ratio`` is
ours / peer, and ``runs`` holds the measurements, a pair ``[ours, peer]`` for each turn. A newer
result replaces an older one with the same ``name`` and ``peer_name``. The environment variable
``BENCH_RESULTS`` names another file, for trials.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The checkout; its benchmarks run as ``python -m benchmarks.ROOM.NAME`` from here."""
RESULTS = Path(os.environ.get("BENCH_RESULTS") or ROOT / "benchmarks" / "results.json")


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    runs: int = 5,
    warm_up: int = 1,
    before: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time calls alternately (A B A B ...) and return the seconds of each, without warm-up.

    ``before`` holds what is done before each of some calls, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, runs):
        for name, call in calls.items():
            if before and name in before:
                before[name]()
            started = clock()
            call()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return seconds


def run_module(module: str, *arguments: str) -> str:
    """Run a benchmark in a process of its own; return what it prints."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def peak_mib(module: str, *arguments: str) -> float:
    """Run a benchmark in a process of its own; return the number that it prints last.

    Nothing else may run in that process: its peak memory is what is measured.
    """
    return float(run_module(module, *arguments).splitlines()[-1])


def restart_peak() -> float:
    """Reset the peak memory of this process; return its resident memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib("VmRSS")


def resident_mib(field: str) -> float:
    """Return a field of /proc/self/status in MiB; ``ru_maxrss`` would include the parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def record(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    peer_name: str,
    unit: str,
    path: Path = RESULTS,
) -> dict[str, Any]:
    """Print one comparison, append it to the results and return it.

    Args:
        name: What was measured, with the size; a row of ``page.py``'s tables.
        ours: Our cost in each turn.
        peer: The peer's in the same turns, as many.
        peer_name: Who the peer is.
        unit: The unit of both, for example ``s``.
        path: The results.
    """
    runs = [[float(a), float(b)] for a, b in zip(ours, peer, strict=True)]
    medians = statistics.median(ours), statistics.median(peer)
    result = {
        "name": name,
        "ours": medians[0],
        "peer": medians[1],
        "peer_name": peer_name,
        "unit": unit,
        "ratio": medians[0] / medians[1],
        "runs": runs,
    }
    print(
        f"{name}: ours {medians[0]:.4g} {unit}, {peer_name} {medians[1]:.4g} {unit}: "
        f"ratio {result['ratio']:.3f} (1/{1 / result['ratio']:.1f}), {len(runs)} runs",
        flush=True,
    )
    results = read_results(path)
    results.append(result)
    draft = path.with_suffix(".draft")
    draft.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
    os.replace(draft, path)
    return result


def read_results(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all results, oldest first; empty if there is no file yet."""
    if not path.exists():
        return []
    results: list[dict[str, Any]] = json.loads(path.read_text())
    return results
