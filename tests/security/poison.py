"""One hostile site of five, and of three: ``python tests/security/poison.py [--seed N] [--quick]``.

Phantom sites train in this process by the real round loop. The attacker knows its own honest
update, the plan and the guard. What must hold:

* the mean (default): in no round does the attacker move the weights by more than
  ``max_share`` x ``clip_update_norm_ratio`` times the median update, whatever it sends or declares;
* the median: no value of a round's weights lies outside those of the honest sites, and the Dice of
  the final weights is within ``NEAR`` of a run in which all sites are honest.

Lines that begin with ``figure`` state the Dice under the default, which no promise covers: a mean
cannot tell a harmful update of ordinary length from an honest one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamfed_common.runtime import terminal

terminal.set_environment()

import torch  # noqa: E402
from tests.security.lib.attempts import Attempts  # noqa: E402
from tests.security.lib.poisoned import Attack, Outcome, Size, Turn, run_poisoned  # noqa: E402

from mamfed_common.model.state_dict import State  # noqa: E402
from mamfed_common.plan import FederationPlan  # noqa: E402
from mamfed_server.aggregation.validation import distance, shortened  # noqa: E402

NEAR = 0.02
"""Dice by which an attack may lower the result."""
DEFAULT = FederationPlan()
BOUND = DEFAULT.max_share * DEFAULT.clip_update_norm_ratio
FULL, QUICK = Size(12, 6, 16, 60), Size(2, 1, 4, 4)


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
    """A federation to run; an empty attack is none."""

    sites: int
    strategy: str | None
    attack: str

    def words(self) -> str:
        """Return it in words."""
        by = f"{self.attack} by one of" if self.attack else "all honest,"
        return f"{by} {self.sites}, {self.strategy or 'mean (default)'}"


def run_case(case: Case, size: Size, seed: int) -> Outcome:
    """Run one federation."""
    attack, kinds = ATTACKS.get(case.attack, (None, frozenset[str]()))
    with tempfile.TemporaryDirectory() as folder:
        return run_poisoned(
            Path(folder) / "run", case.sites, size, seed, case.strategy, attack, kinds
        )


def judge(attempts: Attempts, case: Case, found: Outcome, clean: Outcome, *, dice: bool) -> None:
    """Note what held in a case."""
    change = found.dice - clean.dice
    fact = f"Dice {found.dice:.3f} ({change:+.3f}), reach {found.reach:.2f} median updates"
    flaw = ""
    if case.strategy is None and found.reach > BOUND * 1.001:
        flaw = f"it moved the weights by {found.reach:.2f} median updates, {BOUND:g} at most"
    if case.strategy == "median" and found.outside:
        flaw = f"{found.outside} values outside those of the honest sites"
    if case.strategy == "median" and case.sites == 5 and dice and change < -NEAR:
        flaw = f"Dice fell by {-change:.3f}"
    attempts.note(case.words(), flaw, fact)


def main() -> None:
    """Run all cases and judge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="Check the bounds alone.")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    size = QUICK if given.quick else FULL
    plans = [(sites, strategy) for sites in (5, 3) for strategy in (None, "median")]
    names = ["", *ATTACKS]
    if given.quick:
        plans, names = [(5, "median"), (3, None)], ["", *list(ATTACKS)[5:]]
    cases = [Case(*plan, name) for plan in plans for name in names]
    attempts = Attempts()
    workers = 1 if given.quick else min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        running = [pool.submit(run_case, case, size, seed) for case in cases]
        clean = Outcome()
        for case, future in zip(cases, running, strict=True):
            found = future.result()
            if not case.attack:
                clean = found
                print(f"figure  {case.words()}: Dice {found.dice:.3f}", flush=True)
                continue
            judge(attempts, case, found, clean, dice=not given.quick)
    attempts.finish()


if __name__ == "__main__":
    main()
