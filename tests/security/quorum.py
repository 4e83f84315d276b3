"""Drop-outs at every point of a round: ``python tests/security/quorum.py [--seed N] [--quick]``.

Three scripted sites and the real round loop in this process. What must hold:

* no average is ever made of fewer accepted updates than the floor, and none counts a site twice;
* with a floor of three of three, the run goes on when the site is back, and ends with the bits of a
  run that nothing disturbed;
* without patience, or if the site does not come back for good, the run fails and names the site.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamfed_common.runtime import terminal

terminal.set_environment()

from tests.security.lib.attempts import Attempts, parse_with_seed  # noqa: E402
from tests.security.lib.quorum_sites import (  # noqa: E402
    POINTS,
    Drop,
    Dropping,
    counted_averages,
    floor_plan,
    one_thread,
)
from tests.unit.server.sites import NAMES, NODES, Sites, final, run  # noqa: E402

from mamfed_common.errors import RunError  # noqa: E402
from mamfed_server.run_folder.folder import RunFolder  # noqa: E402

ROUNDS = 4


def federate(dropping: Dropping, folder: Path, floor: int, patience: float) -> RunFolder:
    """Run a federation with one drop-out."""
    return run(
        dropping.sites,
        floor_plan(min_sites=floor),
        folder,
        dropping.transport,
        names=lambda: NODES,
        min_sites=floor,
        resume=True,
        query_again_seconds=0.05,
        patience_seconds=patience,
        on_event=lambda e: dropping.before_round() if e["event"] == "round" else None,
    )


def attempt(drop: Drop, folder: Path, floor: int, expected: str) -> str:
    """Drop out once; return what broke, or nothing."""
    dropping = Dropping(drop)
    with counted_averages() as averages:
        try:
            found = federate(dropping, folder, floor, 60)
        except RunError as error:
            return f"the run ended: {error}"
    if not dropping.done:
        return "the site did not drop out"
    if short := [sites for sites in averages if len(sites) < floor]:
        return f"an average over {short[0]}, the floor is {floor}"
    if len(averages) != ROUNDS or any(len(set(s)) != len(s) for s in averages):
        return f"{len(averages)} averages in {ROUNDS} rounds"
    if floor == len(NAMES) and final(found) != expected:
        return "the bits are not those of an undisturbed run"
    return ""


def impatient(drop: Drop, folder: Path) -> str:
    """Drop out where nobody waits; return what broke, or nothing."""
    with counted_averages() as averages:
        try:
            federate(Dropping(drop), folder, 3, 0)
        except RunError as error:
            if any(len(sites) < 3 for sites in averages):
                return "an average below the floor"
            return "" if "quorum is 3" in str(error) else str(error)
    return "the run did not fail"


def main() -> None:
    """Run all attempts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parse_with_seed(parser)
    seed = given.seed
    one_thread()
    rng, attempts = random.Random(seed), Attempts()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        expected = final(run(Sites(), floor_plan(min_sites=3), root / "undisturbed"))
        points = rng.sample(POINTS, 4) if given.quick else POINTS
        for number, point in enumerate(points):
            for floor in (3,) if given.quick else (3, 2):
                drop = Drop(point, rng.randrange(ROUNDS), rng.choice(NAMES))
                flaw = attempt(drop, root / f"{number}-{floor}", floor, expected)
                words = f"{drop.site} {point}, round {drop.turn + 1}, floor {floor} of 3"
                attempts.note(words, flaw)
        drop = Drop("fails", rng.randrange(ROUNDS), rng.choice(NAMES))
        attempts.note(
            f"{drop.site} fails, round {drop.turn + 1}, no patience",
            impatient(drop, root / "impatient"),
        )
    attempts.finish()


if __name__ == "__main__":
    main()
