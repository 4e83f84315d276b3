"""Measure how long a command takes to print its help, beside importing torch.

Each measurement runs in its own process.
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


def process(*command: str) -> Callable[[], object]:
    """Return a call that runs a command and waits for it."""
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    helps = {
        f"{name} --help": process(str(Path(sys.executable).with_name(name)), "--help")
        for name in ("mamfed-client", "mamfed-server")
    }
    calls = {**helps, IMPORT: process(sys.executable, "-c", IMPORT)}
    seconds = take_turns(calls, runs=arguments.runs)
    for name in helps:
        record(name, seconds[name], seconds[IMPORT], peer_name=f"python -c '{IMPORT}'", unit="s")


if __name__ == "__main__":
    main()
