"""The short form of ``poison.py``: the bounds, without the Dice."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.security import poison
from tests.security.lib.attempts import Attempts
from tests.security.lib.poisoned import Outcome

SCRIPT = Path(__file__).with_name("poison.py")


def test_a_hostile_site_moves_the_weights_no_further_than_the_bound():
    command = [sys.executable, SCRIPT, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 broke")


class MadeUp(poison.Runs):
    """Runs whose Dice a function makes up."""

    def __init__(self, dice):
        self.dice, self.asked = dice, set()

    def start(self, cases):
        self.asked |= {case.weights_seed for case in cases}

    def of(self, case, seeds):
        self.start(case._replace(weights_seed=seed) for seed in seeds)
        return [Outcome(dice=self.dice(case, seed), reach=0.1) for seed in seeds]


def attacked(case):
    return case.attack not in ("", poison.ABSENT)


JUDGED = {
    "nothing is lost": (lambda case, seed: 0.5 + seed / 100, [], 3),
    "one attack costs a lot": (
        lambda case, seed: 0.5 - 0.2 * (case.attack == "zeros"),
        ["zeros by one of 5, mean (default)", "8 attacks by one of 5, mean (default)"],
        12,
    ),
    "all cost a little": (
        lambda case, seed: 0.5 - 0.03 * attacked(case),
        ["8 attacks by one of 5, mean (default)"],
        12,
    ),
    "three seeds had bad luck": (
        lambda case, seed: 0.5 - 0.07 * attacked(case) * (seed < 3),
        [],
        12,
    ),
}


@pytest.mark.parametrize("name", JUDGED)
def test_what_passes_its_bound_is_run_again_and_breaks_only_then(name, capsys):
    dice, broke, seeds = JUDGED[name]
    attempts, runs = Attempts(), MadeUp(dice)
    judge = poison.Judge(attempts, runs, poison.Case(5, None), poison.SEEDS)
    poison.judge_kind(judge, list(poison.ATTACKS))
    assert attempts.broke == broke
    assert runs.asked == set(range(seeds))
