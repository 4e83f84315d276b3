"""Lines fail during training: ``python tests/security/partition.py [--seed N] [--quick]``.

Three real sites and a real coordinator over TLS, each site behind a proxy of its own, a floor of
three, and deadlines of 30 s. One trouble after another befalls a site that the seed chooses. What
must hold: the site is back within 60 s of the healing, the run never dies of it, no round is made
without a site or counted twice, and the weights have the bits of a simulation.
``--seconds`` sets the longest black hole (600), ``--stop`` the time of the SIGSTOP (180). Clocks
are an hour off by libfaketime (``apt-get install faketime``); without it, a line says that they
were left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamfed_common.runtime import terminal

terminal.set_environment()

from tests.processes.deployment import Deployment, simulated_sha256, wait_until  # noqa: E402
from tests.processes.phantoms import small_plan, write_phantoms  # noqa: E402
from tests.security.lib.attempts import Attempts, parse_with_seed  # noqa: E402
from tests.security.lib.cut_line import CutLine  # noqa: E402

BACK_SECONDS = 60.0
SKEW = {"clock ahead": "+1h", "clock behind": "-1h"}
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Trouble(NamedTuple):
    """A trouble of one site, and how long it lasts."""

    kind: str
    site: str
    seconds: float


def draw(seed: int, sites: list[str], longest: float, stop: float, *, quick: bool) -> list[Trouble]:
    """Draw the troubles of a seed."""
    rng = random.Random(seed)
    kinds = [
        *(("black hole", 5.0), ("reset", 0.0), ("up only", 10.0), ("down only", 10.0)),
        *(("half-open", 0.0), ("handshake", 10.0), ("refuse", 10.0), ("slow", 20.0)),
        *(("SIGSTOP", stop), ("black hole", longest)),
        *((kind, 20.0) for kind in SKEW if FAKETIME),
    ]
    if quick:
        kinds = [("black hole", 5.0), ("reset", 0.0)]
    return [Trouble(kind, rng.choice(sites), seconds) for kind, seconds in kinds]


class Partition:
    """A deployment whose lines fail."""

    def __init__(self, federation: Deployment, lines: dict[str, CutLine]) -> None:
        """Cause trouble in a running deployment."""
        self.federation, self.lines = federation, lines

    def strike(self, trouble: Trouble) -> str:
        """Cause a trouble, heal it, and wait until the site is back; return what broke."""
        before = len(self.federation.rounds())
        self._cause(trouble)
        healed = datetime.now(UTC)
        try:
            wait_until(lambda: self._heard(trouble.site) > healed, "", 2 * BACK_SECONDS)
        except TimeoutError:
            return f"not back within {2 * BACK_SECONDS:g} s"
        took = (datetime.now(UTC) - healed).total_seconds()
        wait_until(lambda: len(self.federation.rounds()) > before or self.over(), "a round", 300)
        if took > BACK_SECONDS:
            return f"back after {took:.1f} s only"
        return "" if self.federation.processes["server"].poll() in (None, 0) else "the run died"

    def over(self) -> bool:
        """Return whether the coordinator has ended."""
        return self.federation.processes["server"].poll() is not None

    def _cause(self, trouble: Trouble) -> None:
        line = self.lines[trouble.site]
        direct: dict[str, Callable[[], None]] = {"reset": line.reset, "half-open": line.half_open}
        if trouble.kind in direct:
            direct[trouble.kind]()
            return
        if trouble.kind == "SIGSTOP":
            self._stop(trouble)
            return
        if trouble.kind in SKEW:
            self._skew(trouble)
            return
        line.trouble = trouble.kind
        if trouble.kind in ("handshake", "refuse"):
            line.reset()  # so that the site connects anew
        time.sleep(trouble.seconds)
        line.trouble = ""

    def _stop(self, trouble: Trouble) -> None:
        status = json.loads((self.federation.site_home(trouble.site) / "status.json").read_text())
        pids = [self.federation.processes[trouble.site].pid]
        pids += [int(status[key]) for key in ("node_pid", "worker_pid") if status.get(key)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(trouble.seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def _skew(self, trouble: Trouble) -> None:
        """Start a site anew with a clock that is wrong, and then with the right one."""
        federation, right = self.federation, self.federation.environment
        wrong = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": SKEW[trouble.kind]}
        federation.stop(trouble.site)
        federation.environment = {**right, **wrong, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        federation.start_site(trouble.site)
        federation.environment = right
        time.sleep(trouble.seconds)
        federation.stop(trouble.site)
        federation.start_site(trouble.site)

    def _heard(self, site: str) -> datetime:
        """Return when the coordinator last heard of a site, whole seconds."""
        if self.over():
            return datetime.now(UTC) + timedelta(days=1)
        try:
            facts = json.loads((self.federation.server_home / "status.json").read_text())
            return datetime.fromisoformat(facts["last_contact"][site])
        except (OSError, ValueError, KeyError):
            return datetime.min.replace(tzinfo=UTC)


def main() -> None:
    """Run the troubles and judge the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--stop", type=float, default=180.0)
    parser.add_argument("--quick", action="store_true", help="Two short troubles.")
    given = parse_with_seed(parser)
    seed = given.seed
    attempts = Attempts()
    if not FAKETIME:
        print("skipped: wrong clocks; install faketime", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = write_phantoms(folder / "phantoms", benign=6, malignant=8)
        troubles = draw(seed, list(data), given.seconds, given.stop, quick=given.quick)
        plan = folder / "plan.yaml"
        plan.write_text(plan_text(2 * len(troubles) + 2))
        with Deployment(folder, data) as federation:
            lines = {site: CutLine(federation.port, seed + i) for i, site in enumerate(data)}
            for site, line in lines.items():
                path = federation.site_home(site) / "welcome.json"
                welcome = {**json.loads(path.read_text()), "server": f"127.0.0.1:{line.port}"}
                path.write_text(json.dumps(welcome))
            federation.start_server(plan)
            for site in data:
                federation.start_site(site)
            wait_until(lambda: bool(federation.rounds()), "the first round ends")
            run_troubles(attempts, Partition(federation, lines), troubles)
            judge_end(attempts, federation, simulated_sha256(folder, plan, data))
            for line in lines.values():
                line.close()
    attempts.finish()


def plan_text(rounds: int) -> str:
    """Return a plan of short rounds and deadlines of 30 s."""
    plan = small_plan(pretraining=1, finetuning=rounds, offline_seconds=20, join_seconds=30)
    waits = {"deadline_seconds": 30.0, "min_deadline_seconds": 20.0}
    stages = {
        name: {**getattr(plan, name).model_dump(), **waits}
        for name in ("pretraining", "finetuning")
    }
    evaluation = {**plan.evaluation.model_dump(), "every": rounds}
    personal = {**plan.personal.model_dump(), "steps": 0}
    return plan.changed(**stages, evaluation=evaluation, personal=personal).to_yaml()


def run_troubles(attempts: Attempts, partition: Partition, troubles: list[Trouble]) -> None:
    """Cause the troubles one after the other."""
    for trouble in troubles:
        words = f"{trouble.kind} of {trouble.site}, {trouble.seconds:g} s"
        if partition.over():
            attempts.note(words, "the run ended before")
            continue
        attempts.note(words, partition.strike(trouble))


def judge_end(attempts: Attempts, federation: Deployment, expected: str) -> None:
    """Judge how the run ended."""
    code = federation.wait_for_end(600)
    attempts.note("the run ends by itself", "" if code == 0 else federation.story())
    rounds = federation.rounds()
    positions = [(record["stage"], record["server_round"]) for record in rounds]
    twice = len(positions) - len(set(positions))
    short = [record for record in rounds if len(record["accepted"]) != 3]
    flaw = f"{twice} rounds twice, {len(short)} without a site" if twice or short else ""
    path = federation.run_folder() / "events.jsonl"
    again = path.read_text().count('"event": "below the floor"')
    attempts.note("no round counts twice or lacks a site", flaw, f"{again} rounds done again")
    same = code == 0 and federation.weights_sha256() == expected
    attempts.note("the bits of a simulation", "" if same else "other bits")


if __name__ == "__main__":
    main()
