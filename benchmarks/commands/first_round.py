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
    commit: Annotated[str, typer.Option(help="What to measure.")] = "HEAD",
) -> None:
    """Print the seconds and lines until the installation is there, and until a round is done.

    Clones this repository into a folder of its own, without the cache of pip, runs ``make demo``
    and ends it when the first round is done. torch comes as ``make`` finds it: on a machine that
    holds a CPU wheel (``pip config``), nothing else is downloaded for it.
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
    """Wait for something, or say why it cannot come."""
    deadline = time.monotonic() + MOST_SECONDS
    while not done():
        if demo.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"make demo ended too early:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def end(demo: subprocess.Popen[bytes]) -> None:
    """End make and all that it started."""
    if demo.poll() is None:
        os.killpg(demo.pid, signal.SIGTERM)
    demo.wait()


def tell(what: str, started: float, log: Path) -> None:
    """Print one line."""
    lines = len(log.read_text(errors="replace").splitlines())
    load = os.getloadavg()[0]
    print(
        f"{what}: {time.monotonic() - started:.0f} s, {lines} lines printed "
        f"(load {load:.1f} on {os.cpu_count()} cores)",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(measure)
