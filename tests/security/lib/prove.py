"""Run all suites, two at a time: ``python -m tests.security.lib.prove [SUITE ...] [--seed N]``.

Several suites mostly wait for deadlines, so two beside each other keep two cores busy. The longest
ones begin. Their lines come as they are written, each after its suite's name; the table at
the end has, for each suite, its seed, what held, its time, and its CPU time. The exit code is 1 if
an attempt broke, or a suite ended otherwise than with its last line.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SUITES = Path(__file__).parents[1]
ROOT = SUITES.parents[1]
MINUTES = {
    "partition": 23,
    "chaos": 15,
    "poison": 12,
    "red_team": 7,
    "soak": 5,
    "egress": 4,
    "hostile_coordinator": 4,
    "fuzz_parsers": 4,
    "disk_full": 3,
    "attack": 2,
    "quorum": 1,
    "pki": 1,
    "corrupt": 1,
}
"""About how long each takes on two quiet cores: the order in which they begin."""
HANGS_MINUTES, ENDING_SECONDS, READING_SECONDS = 50.0, 60.0, 10.0
LAST = re.compile(r"\d+ attempts, (\d+) held, (\d+) broke")


class Ended(NamedTuple):
    """A suite that has ended.

    Attributes:
        suite: Its name.
        seed: Its seed, as it printed it.
        last: Its last line.
        code: Its exit code; negative: the signal that ended it.
        seconds: How long it took.
        cpu_seconds: CPU time of it and of the processes that it waited for.
    """

    suite: str
    seed: str
    last: str
    code: int
    seconds: float
    cpu_seconds: float

    def held(self) -> bool:
        """Return whether all of its attempts held."""
        found = LAST.fullmatch(self.last)
        return self.code == 0 and found is not None and found[2] == "0"

    def row(self) -> str:
        """Return its row of the table."""
        judged = "held" if self.held() else f"BROKE (exit code {self.code})"
        times = f"{self.seconds:8.0f}  {self.cpu_seconds:8.0f}"
        return f"{self.suite:20}  {self.seed:>7}  {times}  {judged}: {self.last}"


class Told:
    """What a suite has said so far: its seed, and the line that judges it."""

    def __init__(self, suite: str) -> None:
        """Listen to a suite."""
        self.suite, self.seed, self.last = suite, "", "no last line"

    def read(self, lines: Iterable[str]) -> None:
        """Print lines after the suite's name, and keep those that matter."""
        for line in map(str.rstrip, lines):
            print(f"{self.suite:20}| {line}", flush=True)
            if line.startswith("seed "):
                self.seed = line.removeprefix("seed ")
            if LAST.fullmatch(line):
                self.last = line


def names() -> list[str]:
    """Return all suites, the longest first."""
    found = {path.stem for path in SUITES.glob("*.py") if not path.stem.startswith("test_")}
    return sorted(found, key=lambda name: (-MINUTES.get(name, HANGS_MINUTES), name))


def run_suite(suite: str, options: Sequence[str] = (), minutes: float = HANGS_MINUTES) -> Ended:
    """Run one suite; print its lines after its name.

    Args:
        suite: Its name.
        options: Its options.
        minutes: A suite that takes longer is ended, as by Ctrl-C.
    """
    began, told = time.monotonic(), Told(suite)
    process = subprocess.Popen(
        [sys.executable, str(SUITES / f"{suite}.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=told.read, args=[process.stdout], daemon=True)
    timers = [
        threading.Timer(60 * minutes, process.send_signal, [signal.SIGINT]),
        threading.Timer(60 * minutes + ENDING_SECONDS, process.send_signal, [signal.SIGKILL]),
    ]
    for thread in (reader, *timers):
        thread.start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    for timer in timers:
        timer.cancel()
    reader.join(READING_SECONDS)  # a process that a killed suite leaves may hold the pipe open
    took, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    return Ended(suite, told.seed, told.last, process.returncode, took, cpu)


def main() -> None:
    """Run the suites and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="All, if none is named.")
    parser.add_argument("--seed", help="The seed of each; otherwise each draws its own.")
    parser.add_argument("--quick", action="store_true", help="The short forms.")
    parser.add_argument("--at-a-time", type=int, default=2)
    given = parser.parse_args()
    if unknown := set(given.suites) - set(names()):
        parser.error(f"no suite {sorted(unknown)[0]!r}; there are {', '.join(sorted(names()))}")
    options = ["--seed", given.seed] if given.seed else []
    options += ["--quick"] if given.quick else []
    began = time.monotonic()
    with ThreadPoolExecutor(given.at_a_time) as pool:
        ended = list(
            pool.map(
                lambda suite: run_suite(suite, options),
                [name for name in names() if name in (given.suites or names())],
            )
        )
    print(f"\n{'suite':20}  {'seed':>7}  {'seconds':>8}  {'CPU':>8}")
    for one in ended:
        print(one.row())
    broke = [one.suite for one in ended if not one.held()]
    minutes = (time.monotonic() - began) / 60
    print(f"{len(ended)} suites in {minutes:.1f} minutes, broke: {', '.join(broke) or 'none'}")
    sys.exit(1 if broke else 0)


if __name__ == "__main__":
    main()
