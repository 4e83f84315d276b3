"""Compare the time of ``mamfed-client data check --fresh`` or ``prepare`` with another version's.

Both versions read each folder alternately, every run in its own process with its own cache and
output. The processor time of the command and of its decoding processes counts, so other programs
disturb little; ``--wall`` takes the clock's instead. The other version is a checkout, which runs
with this Python, or the ``bin`` folder of a virtual environment that contains it.

Usage: python -m benchmarks.intake.data_check FOLDER... --against PATH [--runs 5] [--wall]
       [--prepare SIZE]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.lib.harness import ROOT, record, take_turns

PACKAGES = ("client", "common", "server", "simulations")


def cpu_of_children() -> float:
    """Return the processor seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_checkout(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of a checkout or of an environment's ``bin``, and its variables."""
    if (path / "mamfed-client").is_file():
        return [str(path / "mamfed-client")], {}
    if not (path / "client" / "mamfed_client").is_dir():
        raise SystemExit(f"{path}: neither a checkout of mamfed nor a folder with mamfed-client")
    folders = os.pathsep.join(str(path / package) for package in PACKAGES)
    return [sys.executable, "-P", "-m", "mamfed_client"], {"PYTHONPATH": folders}


def reading(
    command: list[str], folder: Path, own: Path, variables: Mapping[str, str], size: int
) -> Callable[[], None]:
    """Return a call that checks a folder, or prepares it if there is a size.

    ``own`` receives what it writes.
    """
    own.mkdir(exist_ok=True)
    places = {"MAMFED_CACHE": str(own / "cache"), "MAMFED_SECRET": str(own / "secret")}
    environment = os.environ | places | dict(variables)
    work = ["check", str(folder.absolute()), "--fresh"]
    if size:
        work = ["prepare", str(folder.absolute()), "--out", str(own / "out"), "--size", str(size)]
    words = [*command, "data", *work]

    def run() -> None:
        ran = subprocess.run(words, env=environment, capture_output=True, text=True)
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or [""])[-1]
            raise SystemExit(f"{words[0]}: exit code {ran.returncode}: {last}")

    return run


def name_of(path: Path) -> str:
    """Return a version's name: the commit of a checkout, otherwise its path."""
    command = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return f"mamfed {commit}" if commit else str(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--against", type=Path, required=True, metavar="PATH")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--wall", action="store_true", help="the clock's time")
    parser.add_argument("--prepare", type=int, default=0, metavar="SIZE", help="data prepare")
    arguments = parser.parse_args()
    other = arguments.against.absolute()
    clock, what = (
        (time.perf_counter, "time") if arguments.wall else (cpu_of_children, "processor time")
    )
    how = f"data prepare --size {arguments.prepare}" if arguments.prepare else "data check --fresh"
    here = of_checkout(ROOT)
    there, name = of_checkout(other), name_of(other)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as own:
        for folder in arguments.folders:
            calls = {
                who: reading(command, folder, Path(own) / who, variables, arguments.prepare)
                for who, (command, variables) in {"ours": here, "other": there}.items()
            }
            fresh = {
                who: partial(shutil.rmtree, Path(own) / who / "out", ignore_errors=True)
                for who in calls
            }
            seconds = take_turns(calls, runs=arguments.runs, clock=clock, before=fresh)
            title = f"{how}, {folder.name}, {what}"
            record(title, seconds["ours"], seconds["other"], peer_name=name, unit="s")
            ratios = [a / b for a, b in zip(seconds["ours"], seconds["other"], strict=True)]
            print(f"{folder.name}: ratios of turns {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
