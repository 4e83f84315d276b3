"""Measure time and output from ``git clone`` to the demo's first round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lib.harness import ROOT

ROUNDS = "runs/demo/rounds.jsonl"
MOST_SECONDS = 3600.0


def measure(
    commit: Annotated[str, typer.Option(help="Commit to measure.")] = "HEAD",
) -> None:
    """Print the seconds and output lines until mamfed is installed and until the first round ends.

    Clones this repository into a new folder, runs ``make demo`` without pip's cache, and stops it
    after the first round. ``make`` installs torch as usual: on a machine with a configured CPU
    wheel (``pip config``), no other torch is downloaded.
    """
    place = Path(tempfile.mkdtemp(prefix="mamfed-first-round-"))
    clone, log = place / "mamfed", place / "log"
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1", "MAMFED_CACHE": str(place / "cache")}
    started = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=clone, check=True)
    with log.open("wb") as out:
        demo = subprocess.Popen(
            ["make", "demo"],
            cwd=clone,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        wait(lambda: (clone / ".venv" / ".demo").exists(), demo, log)
        tell("installed", started, log)
        wait(lambda: (clone / ROUNDS).is_file(), demo, log)
        tell("first round", started, log)
    finally:
        end(demo)
        shutil.rmtree(place)


def wait(done: Callable[[], bool], demo: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``done`` returns true; exit with the log if the demo ends first."""
    deadline = time.monotonic() + MOST_SECONDS
    while not done():
        if demo.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"make demo ended too early:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def end(demo: subprocess.Popen[bytes]) -> None:
    """Stop make and all its child processes."""
    if demo.poll() is None:
        os.killpg(demo.pid, signal.SIGTERM)
    demo.wait()


def tell(what: str, started: float, log: Path) -> None:
    """Print the elapsed time, the number of output lines and the load."""
    lines = len(log.read_text(errors="replace").splitlines())
    load = os.getloadavg()[0]
    print(
        f"{what}: {time.monotonic() - started:.0f} s, {lines} lines printed "
        f"(load {load:.1f} on {os.cpu_count()} cores)",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(measure)
