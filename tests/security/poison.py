"""One hostile site of five, and of three: ``python tests/security/poison.py [--seed N] [--quick]``.

Phantom sites train in this process by the real round loop. The attacker knows its own honest
update, the plan and the guard. What must hold:

* in no round does the attacker move the weights by more than its largest share (:func:`bound`)
  times ``clip_update_norm_ratio``, in median updates, whatever it sends or declares;
* with ``median``, no value of a round's weights lies outside those of the honest sites;
* among five, with the default mean and with ``median``, the attacks lower the Dice of the final
  weights by at most ``NEAR`` on average, and none by more than ``NOISE``.

Dice is compared with that of the honest sites alone. Runs so short differ by up to .05 by chance
(``docs/decisions/0035-demo.md``), so each pair shares one seed of the weights, and among
five each attack is run with all ``SEEDS`` of them. Lines that begin with ``figure``
and the Dice among three state what no promise covers: with one hostile site of three, a mean cannot
tell a harmful update of ordinary length from an honest one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamfed_common.runtime import terminal

terminal.set_environment()

import torch  # noqa: E402
from tests.security.lib.attempts import Attempts, parse_with_seed  # noqa: E402
from tests.security.lib.poisoned import (  # noqa: E402
    Attack,
    Outcome,
    Poisoned,
    Size,
    Turn,
    plan_of,
    run_poisoned,
)

from mamfed_common.model.state_dict import State  # noqa: E402
from mamfed_common.plan import FederationPlan  # noqa: E402
from mamfed_server.aggregation.site_weights import largest_share  # noqa: E402
from mamfed_server.aggregation.validation import distance, shortened  # noqa: E402

NEAR, NOISE = 0.02, 0.05
"""Dice by which attacks may lower the result, on average and each."""
SEEDS = 3
ABSENT = "nothing"
DEFAULT = FederationPlan()
FULL, QUICK = Size(12, 6, 16, 60), Size(2, 1, 4, 4)


def bound(case: Case) -> float:
    """Return by how many median updates one site moves a round at most."""
    share = largest_share(case.sites, DEFAULT) if case.strategy is None else 1 / case.sites
    return share * DEFAULT.clip_update_norm_ratio


def scaled(turn: Turn) -> State:
    """Send 9.9 times the honest update."""
    return shortened(turn.honest, turn.start, 9.9)


def flipped(turn: Turn) -> State:
    """Send the honest update the other way round, at 9.9 times its length."""
    return shortened(turn.honest, turn.start, -9.9)


def noise(turn: Turn) -> State:
    """Send noise of 9.9 times the honest length."""
    drawn = {
        name: tensor + torch.randn(tensor.shape, generator=turn.random)
        for name, tensor in turn.start.items()
    }
    length = 9.9 * distance(turn.honest, turn.start) / distance(drawn, turn.start)
    return shortened(drawn, turn.start, length)


def zeros(turn: Turn) -> State:
    """Send zeros."""
    return {name: torch.zeros_like(tensor) for name, tensor in turn.start.items()}


def honest(turn: Turn) -> State:
    """Send what was trained."""
    return turn.honest


def drift(turn: Turn) -> State:
    """Push every weight the same way in each round, just within the guard."""
    pushed = {name: tensor + 1 for name, tensor in turn.start.items()}
    length = 1.9 * distance(turn.honest, turn.start) / distance(pushed, turn.start)
    return shortened(pushed, turn.start, length)


def impossible(turn: Turn) -> State:
    """Send NaN in one round and huge values in the next."""
    value = float("nan") if turn.server_round % 2 else 1e30
    return {name: torch.full_like(tensor, value) for name, tensor in turn.start.items()}


ATTACKS: dict[str, tuple[Attack, frozenset[str]]] = {
    "scaled": (scaled, frozenset()),
    "sign-flipped": (flipped, frozenset()),
    "random noise": (noise, frozenset()),
    "zeros": (zeros, frozenset()),
    "wrong masks": (honest, frozenset({"labels"})),
    "10^7 declared, sign-flipped": (flipped, frozenset({"vast"})),
    "constant drift": (drift, frozenset()),
    "NaN and 1e30": (impossible, frozenset()),
}


class Case(NamedTuple):
    """A federation to run; without an attack all are honest, with ``ABSENT`` the others alone."""

    sites: int
    strategy: str | None
    attack: str = ""
    weights_seed: int = 0

    def how(self) -> str:
        """Return the strategy in words."""
        return self.strategy or "mean (default)"

    def words(self) -> str:
        """Return it in words."""
        how = self.how()
        if self.attack == ABSENT:
            return f"{self.sites - 1} honest sites alone, {how}"
        by = f"{self.attack} by one of" if self.attack else "all honest,"
        return f"{by} {self.sites}, {how}"


def run_case(case: Case, size: Size, seed: int) -> Outcome:
    """Run one federation."""
    absent = frozenset({"absent"} if case.attack == ABSENT else ())
    attack, kinds = ATTACKS.get(case.attack, (None, absent))
    with tempfile.TemporaryDirectory() as folder:
        return run_poisoned(
            Path(folder) / "run",
            plan_of(size, seed + case.weights_seed, case.strategy),
            Poisoned(case.sites, size, seed, attack, kinds),
        )


class Judge:
    """Judges the attacks on one kind of federation."""

    def __init__(self, attempts: Attempts, clean: list[float], *, dice: bool) -> None:
        """Compare with the clean Dice of each seed, if ``dice`` is to be judged at all."""
        self.attempts, self.clean, self.dice = attempts, clean, dice
        self.changes: list[float] = []

    def attack(self, case: Case, runs: Mapping[int, Outcome]) -> None:
        """Note what held in an attack, by the seed of its runs."""
        change = statistics.fmean(run.dice - self.clean[seed] for seed, run in runs.items())
        dice = statistics.fmean(run.dice for run in runs.values())
        reach, most = max(run.reach for run in runs.values()), bound(case)
        fact = f"Dice {dice:.3f} ({change:+.3f}), reach {reach:.2f} of {most:.2f} median updates"
        flaw = ""
        if reach > most * 1.001:
            flaw = f"it moved the weights by {reach:.2f} median updates, {most:g} at most"
        outside = max(run.outside for run in runs.values())
        if case.strategy == "median" and outside:
            flaw = f"{outside} values outside those of the honest sites"
        if self.dice and case.sites == 5:
            self.changes.append(change)
            if change < -NOISE:
                flaw = f"Dice fell by {-change:.3f}"
        self.attempts.note(case.words(), flaw, fact)

    def together(self, case: Case) -> None:
        """Note the mean change of all attacks that were judged by Dice."""
        if not self.changes:
            return
        mean = statistics.fmean(self.changes)
        words = f"{len(self.changes)} attacks by one of 5, {case.how()}"
        flaw = f"Dice fell by {-mean:.3f} on average" if mean < -NEAR else ""
        self.attempts.note(words, flaw, f"Dice {mean:+.3f} on average")


Started = dict[int, Future[Outcome]]
"""The runs of a case, by the seed of the weights."""


def runs_of(kind: Case, attack: str, number: int, seeds: int) -> range:
    """Return the seeds with which an attack is run: all among five, where Dice is judged."""
    if not attack:
        return range(1)
    if attack == ABSENT or kind.sites == 5:
        return range(seeds)
    return range(number % seeds, number % seeds + 1)


def main() -> None:
    """Run all cases and judge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Check the bounds alone.")
    given = parse_with_seed(parser)
    size, names, seeds = FULL, list(ATTACKS), SEEDS
    kinds = [Case(sites, strategy) for sites in (5, 3) for strategy in (None, "median")]
    if given.quick:
        size, names, seeds = QUICK, names[5:], 1
        kinds = [Case(5, "median"), Case(3, None)]
    attempts = Attempts()
    workers = 1 if given.quick else min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:

        def start(kind: Case, attack: str, number: int = 0) -> Started:
            return {
                seed: pool.submit(
                    run_case, kind._replace(attack=attack, weights_seed=seed), size, given.seed
                )
                for seed in runs_of(kind, attack, number, seeds)
            }

        running = [
            (
                kind,
                start(kind, ""),
                start(kind, ABSENT),
                {name: start(kind, name, number) for number, name in enumerate(names)},
            )
            for kind in kinds
        ]
        for kind, all_honest, absent, attacked in running:
            print(f"figure  {kind.words()}: Dice {all_honest[0].result().dice:.3f}", flush=True)
            clean = [future.result().dice for future in absent.values()]
            told = ", ".join(f"{dice:.3f}" for dice in clean)
            print(f"figure  {kind._replace(attack=ABSENT).words()}: Dice {told}", flush=True)
            judge = Judge(attempts, clean, dice=not given.quick)
            for name, runs in attacked.items():
                found = {seed: future.result() for seed, future in runs.items()}
                judge.attack(kind._replace(attack=name), found)
            judge.together(kind)
    attempts.finish()


if __name__ == "__main__":
    main()
