"""The CPU's benchmarks of the network, tried on small images: what they record, what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from time import monotonic, sleep

import pytest

from benchmarks.lib.page import aim_of
from benchmarks.network import busy, cpu

ROOT = Path(__file__).parents[2]


def state_of(pid: int) -> str:
    """Return a process's state, such as R or T; gone or only to be buried: X."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
    return "X" if state == "Z" else state


def wait_for(pid: int, states: str) -> None:
    until = monotonic() + 30
    while state_of(pid) not in states:
        assert monotonic() < until, state_of(pid)
        sleep(0.01)


@pytest.mark.parametrize("kept", [False, True])
def test_peers_are_recorded_with_and_without_kept_memory(kept, monkeypatch):
    rows = []
    monkeypatch.setattr(cpu, "record", lambda name, *_, peer_name, unit: rows.append(peer_name))
    bench = cpu.Bench(Namespace(device="cpu", size=64, runs=1, minutes=1))
    assert len(cpu.compare(bench, train=True, kept=kept)) == 1
    assert rows == [f"{peer}, memory kept" if kept else peer for peer in busy.PEERS]


def test_loops_run_only_when_asked_and_end():
    loops = busy.Loops(2)
    pids = [process.pid for process in loops.processes]
    try:
        for pid in pids:
            wait_for(pid, "T")
        with loops.running():
            for pid in pids:
                wait_for(pid, "R")
        for pid in pids:
            wait_for(pid, "T")
    finally:
        loops.end()
    assert {state_of(pid) for pid in pids} == {"X"}


@pytest.mark.parametrize("then", ["time.sleep(60)", "pass"])
def test_loops_end_when_their_parent_is_killed(then):
    code = (
        "from benchmarks.network import busy; import time; loops = busy.Loops(1)\n"
        f"with loops.running(): print(loops.processes[0].pid, flush=True); {then}\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    loop = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_for(loop, "X")


def test_a_busy_machine_is_compared_with_a_quiet_one_and_with_peers(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.network.busy", "--sizes", "64", "--loops", "1"]
    environment = {**os.environ, "BENCH_RESULTS": str(results)}
    subprocess.run(
        [*command, "--seconds", "0", "--peers", "MONAI BasicUNet"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    found = json.loads(results.read_text())
    names = [
        "training step beside endless loops, 64 x 64",
        "inference beside endless loops, 64 x 64",
    ]
    peers = ["the same, quiet", "MONAI BasicUNet", "MONAI BasicUNet, our settings"]
    assert [(row["name"], row["peer_name"]) for row in found] == [
        (name, peer) for name in names for peer in peers
    ]
    assert [aim_of(row).ratio for row in found] == [2.5, 1, 1] * 2
