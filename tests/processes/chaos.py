"""``make chaos``: SIGKILL the server, sites, nodes and workers at ten random moments of ten rounds.

The run must end by itself, with the bits of an undisturbed run (unless a round lost a site, which
is said), at most one round redone a server kill, the server back within 30 s and a site within 90.
A killed ``start`` command is started again by this script, as systemd would.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mamfed_common.runtime import terminal

from deployment import Deployment, simulated_sha256, wait_until  # isort: skip
from phantoms import NORM_GROUPS, small_plan, write_phantoms  # isort: skip

SERVER_BACK_SECONDS, SITE_BACK_SECONDS = 30.0, 90.0
LONGEST_WAIT_SECONDS = 8.0


@dataclass(frozen=True)
class Kill:
    """What is killed when: after so many rounds, and so many seconds more."""

    victim: str
    after_rounds: int
    wait_seconds: float


def draw_kills(seed: int, sites: list[str], rounds: int, count: int) -> list[Kill]:
    """Draw the kills of a seed; the server and a site's every part come up at least once."""
    rng = random.Random(seed)
    parts = [f"{site} {part}" for site in sites for part in ("node", "worker", "supervisor")]
    sure = ["server process", "server supervisor", *rng.sample(parts, 3)]
    victims = sure + rng.choices(["server process", *parts], k=max(count - len(sure), 0))
    rng.shuffle(victims)
    return [
        Kill(victim, index * rounds // count, rng.uniform(0, LONGEST_WAIT_SECONDS))
        for index, victim in enumerate(victims[:count])
    ]


class Chaos:
    """A deployment that is shot at."""

    def __init__(self, federation: Deployment, plan: Path, say: Callable[[str], None]) -> None:
        """Shoot at a running deployment."""
        self.federation, self.plan, self.say = federation, plan, say
        self.late: list[str] = []

    def strike(self, kill: Kill) -> None:
        """Kill, then wait until the victim is back."""
        name, part = kill.victim.split()
        done = self.federation.processes["server"]
        wait_until(
            lambda: len(self.federation.rounds()) >= kill.after_rounds or done.poll() is not None,
            f"round {kill.after_rounds}",
        )
        time.sleep(kill.wait_seconds)
        if done.poll() is not None:
            self.say(f"the run ended before {kill.victim} could be killed")
            return
        pid = self._pid(name, part)
        before = self._status(name)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        self.say(f"SIGKILL {kill.victim}")
        if part == "supervisor":
            self.federation.processes[name].wait()
            self._restart(name)
        limit = SERVER_BACK_SECONDS if name == "server" else SITE_BACK_SECONDS
        wait_until(lambda: self._is_back(name, before), f"{kill.victim} is back", 4 * limit)
        took = time.monotonic() - killed
        self.say(f"    back after {took:.1f} s")
        if took > limit:
            self.late.append(f"{kill.victim}: {took:.1f} s")

    def _pid(self, name: str, part: str) -> int:
        if part == "supervisor":
            return self.federation.processes[name].pid
        key = "pid" if name == "server" else f"{part}_pid"
        wait_until(lambda: bool(self._status(name).get(key)), f"{name} has a {part}")
        return int(self._status(name)[key])

    def _restart(self, name: str) -> None:
        if name == "server":
            self.federation.start_server(self.plan)
        else:
            self.federation.start_site(name)

    def _is_back(self, name: str, before: dict[str, object]) -> bool:
        """Tell whether new processes are at work in the place of those before."""
        if self.federation.processes["server"].poll() is not None:
            return True
        status = self._status(name)
        if name == "server":
            return "address" in status and status["pid"] != before.get("pid")
        is_new = bool(status.get("node_pid")) and status["node_pid"] != before.get("node_pid")
        return is_new and status.get("state") in ("online", "training")

    def _status(self, name: str) -> dict[str, object]:
        home = self.federation.server_home if name == "server" else self.federation.site_home(name)
        try:
            found = json.loads((home / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def main() -> int:
    """Run the chaos; return 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--seed", type=int, default=None, help="Seed of the kills.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    out = given.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shown, started = terminal.console(), time.monotonic()

    def say(text: str) -> None:
        shown.print(f"{time.monotonic() - started:6.1f} s  {text}", soft_wrap=True)

    say(f"seed {seed}")
    data = write_phantoms(out / "phantoms", benign=16, malignant=16)
    first = given.rounds // 2
    plan = out / "plan.yaml"
    recipe = small_plan(first, given.rounds - first, norm_groups=NORM_GROUPS)
    plan.write_text(recipe.to_yaml())
    expected = simulated_sha256(out, plan, data)
    say(f"undisturbed {expected}")
    with Deployment(out, data) as federation:
        federation.start_server(plan)
        for name in data:
            federation.start_site(name)
        chaos = Chaos(federation, plan, say)
        for kill in draw_kills(seed, list(data), given.rounds, given.kills):
            chaos.strike(kill)
        code = federation.wait_for_end(600)
        return _judge(federation, code, expected, chaos.late, say)


def _judge(
    federation: Deployment, code: int, expected: str, late: list[str], say: Callable[[str], None]
) -> int:
    """Say what held and what did not; return 0 where everything did."""
    if code:
        print(federation.story())
        say(f"the run ended with exit code {code}")
        return 1
    path = federation.run_folder() / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    redone = [e["redone"] for e in events if e["event"] == "resumed"]
    lost = [r for r in federation.rounds() if r["refused"]]
    found = federation.weights_sha256()
    say(f"resumed {len(redone)} times, rounds redone {redone}")
    say(f"rounds that lost a site: {len(lost)}")
    say(f"after chaos {found}: {'equal' if found == expected else 'not equal'}")
    for line in late:
        say(f"TOO LATE {line}")
    for record in federation.rounds():
        say(f"{record['stage']} {record['server_round']}: {record['seconds']:.1f} s")
    held = (found == expected or lost) and not late and all(len(r) <= 1 for r in redone)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
