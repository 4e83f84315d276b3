"""Measure training steps and inference on a busy machine: mamfed beside itself and the peers.

Usage: python -m benchmarks.network.busy [--sizes 128,512,1536] [--loops 2] [--seconds 1]

Starts its own endless loops, which it halts for the quiet turns. Each network runs in a process of
its own, because libgomp reads its settings once; only one computes at a time. Ours runs as mamfed's
commands run it: threads that spin briefly and then sleep, freed memory kept, all cores. The peers
run as in their users' scripts, and again with our settings. Everything else on the machine should
be idle. Takes about fifteen minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import NamedTuple

from benchmarks.lib.harness import ROOT, record
from mamfed_common.runtime.threads import WAITING

OURS = "mamfed"
PEERS = ("MONAI BasicUNet", "smp.Unet(resnet34)", "nnU-Net PlainConvUNet")
TURNS = {128: 3, 512: 3}
"""Turns by size; larger images take one, because a peer's step takes a minute."""
STEPS = 3
"""Steps in a turn of ours, and of everyone on images of at most 512 pixels; the median counts."""

# PR_SET_PDEATHSIG, SIGKILL: it also ends, halted or not, when this process was killed.
LOOP = "import ctypes; ctypes.CDLL(None).prctl(1, 9); print(flush=True)\nwhile True: pass"


class Work(NamedTuple):
    """What is measured: a training step or an inference on one square image."""

    train: bool
    size: int

    @property
    def name(self) -> str:
        """The name of the result."""
        what = "training step" if self.train else "inference"
        return f"{what} beside endless loops, {self.size} x {self.size}"


class Loops:
    """Endless loops in processes of their own, halted at first."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-c", LOOP]
        self.processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for process in self.processes:
            assert process.stdout
            process.stdout.readline()  # it has begun
        self._signal(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the loops run inside the ``with`` block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """End the loops."""
        for process in self.processes:
            process.kill()
            process.communicate()

    def _signal(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)


class Runner:
    """A network in its own process, which waits for work."""

    def __init__(self, label: str, *, our_settings: bool, least_seconds: float) -> None:
        self.label, self.our_settings = label, our_settings
        self.least_seconds = least_seconds
        environment = {name: value for name, value in os.environ.items() if name not in WAITING}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.network.busy", "--runner", label]
            + ["--keep"] * our_settings,
            cwd=ROOT,
            env=environment | (WAITING if our_settings else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def name(self) -> str:
        """The name of a peer in the results."""
        return f"{self.label}, our settings" if self.our_settings else self.label

    def seconds(self, work: Work) -> float:
        """Return the median seconds of some steps, after a warm-up where it matters.

        Raises:
            RuntimeError: The process has ended.
        """
        large = work.size > max(TURNS) and self.label != OURS
        # Without memory kept, the first step on a large image is like the others.
        order = {**work._asdict(), "steps": 1 if large else STEPS}
        order["seconds"] = 0 if large else self.least_seconds
        order["warm_up"] = not large or self.our_settings
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with {self.process.wait()}")
        return statistics.median(json.loads(line))

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def serve(label: str, keep: bool) -> None:
    """Measure in this process what stdin orders, one JSON object a line, until it closes."""
    import torch

    from benchmarks.network.steps import VARIANTS, Bench, Step
    from mamfed_common.model.malloc import keep_freed_memory

    torch.set_num_threads(os.cpu_count() or 1)
    if keep:
        keep_freed_memory()
    for line in sys.stdin:
        order = json.loads(line)
        options = argparse.Namespace(device="cpu", size=order["size"], runs=1, minutes=60)
        step = Step(Bench(options, (label,)), label, VARIANTS["fp32"], 1, order["train"])
        least, seconds = order["warm_up"] + order["steps"], []
        while len(seconds) < least or sum(seconds) < order["seconds"]:
            started = perf_counter()
            step()
            seconds.append(perf_counter() - started)
        print(json.dumps(seconds[order["warm_up"] :]), flush=True)
        del step
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # for the next process


def measure(work: Work, ours: Runner, peers: Sequence[Runner], loops: Loops) -> None:
    """Measure ours and the peers in turns, and record each beside ours on the busy machine."""
    quiet, busy = [], []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(TURNS.get(work.size, 1)):
        quiet.append(ours.seconds(work))
        with loops.running():
            busy.append(ours.seconds(work))
            for peer in peers:
                theirs[peer.name].append(peer.seconds(work))
    record(work.name, busy, quiet, peer_name="the same, quiet", unit="s")
    for name, seconds in theirs.items():
        record(work.name, busy, seconds, peer_name=name, unit="s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="128,512,1536")
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=1, help="least time of a turn on images up to 512 pixels"
    )
    parser.add_argument("--peers", default=";".join(PEERS), help="names, separated by semicolons")
    parser.add_argument("--runner", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.runner:
        serve(options.runner, options.keep)
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    print(f"{options.loops} loops, load before them {os.getloadavg()[0]:.1f}", flush=True)
    with ExitStack() as stack:
        loops = Loops(options.loops)
        stack.callback(loops.end)
        labels = [(OURS, True)]
        labels += [(label, ours) for label in options.peers.split(";") for ours in (False, True)]
        runners = []
        for label, our_settings in labels:
            runner = Runner(label, our_settings=our_settings, least_seconds=options.seconds)
            runners.append(runner)
            stack.callback(runner.end)
        for size in sizes:
            measure(Work(True, size), runners[0], runners[1:], loops)
        measure(Work(False, max(sizes)), runners[0], runners[1:], loops)


if __name__ == "__main__":
    main()
