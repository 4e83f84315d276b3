"""Measure how long a command takes to print its help or a plan, beside importing torch.

Also: processor time and memory that each process of a role has used once it is imported, beside
those of ``import torch``. Each measurement runs in its own process.
Usage: python -m benchmarks.commands.startup [--runs 7]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.lib.harness import record, take_turns

IMPORT = "import torch"
PROCESSES = {
    "mamfed-server start": "mamfed_server.service.supervisor",
    "the coordinator's server process": "mamfed_server.service.server_process",
    "mamfed-client start": "mamfed_client.node.supervisor",
    "a site's node": "mamfed_client.node.supernode",
    "a site's worker": "mamfed_client.node.executor",
}
"""The processes of both roles, by module."""
USED = """
import resource, sys
__import__(sys.argv[1])
used = resource.getrusage(resource.RUSAGE_SELF)
lines = open("/proc/self/status").read().splitlines()
resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
print(used.ru_utime + used.ru_stime, resident / 1024)
"""


def process(*command: str) -> Callable[[], object]:
    """Return a call that runs a command and waits for it."""
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def used(module: str) -> tuple[float, float]:
    """Return processor seconds and MiB that a process has used once it has imported a module."""
    command = [sys.executable, "-c", USED, module]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, resident = done.stdout.split()
    return float(seconds), float(resident)


def show_processes(runs: int) -> None:
    """Record what each process costs before it has done anything."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        for module in (*PROCESSES.values(), "torch"):
            found.setdefault(module, []).append(used(module))
    for name, module in PROCESSES.items():
        for what, unit, at in (("processor time", "s", 0), ("memory", "MiB", 1)):
            ours, peer = ([each[at] for each in found[key]] for key in (module, "torch"))
            record(f"{name}, imported: {what}", ours, peer, peer_name=IMPORT, unit=unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    helps = {
        f"{name} --help": process(str(Path(sys.executable).with_name(name)), "--help")
        for name in ("mamfed-client", "mamfed-server", "mamfed-simulate")
    }
    helps["mamfed-simulate plan"] = process(
        str(Path(sys.executable).with_name("mamfed-simulate")), "plan"
    )
    calls = {**helps, IMPORT: process(sys.executable, "-c", IMPORT)}
    seconds = take_turns(calls, runs=arguments.runs)
    for name in helps:
        record(name, seconds[name], seconds[IMPORT], peer_name=f"python -c '{IMPORT}'", unit="s")
    show_processes(arguments.runs)


if __name__ == "__main__":
    main()
