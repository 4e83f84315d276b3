"""Red team on phantoms: what a site's update reveals, under each protection.

``python tests/security/red_team.py [--seed N] [--quick]``. Two attacks by a coordinator that knows
the weights before and after a round, the plan, and more than a real one would:

* inversion (``lib/inversion.py``): is there an image in the update? Measured against the mean image
  of other patients, which needs no update at all;
* membership by loss: which of 80 patients trained? 0.5 is a guess.

Lines that begin with ``figure`` state what no promise covers. An attempt holds if the best
reconstruction is no better than the mean image (0.05 of SSIM), or if membership is told no better
than the noise allows; the first one is the attack's own check: it holds if it recovers an image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from tests.security.lib.attempts import Attempts
from tests.security.lib.phantom_patients import intensities, patients
from tests.security.lib.phantom_training import (
    Protection,
    Recovered,
    Site,
    attack,
    clipped_and_noised,
    dice,
    epsilon_of,
    largest_area,
    membership,
    private,
    public_model,
    unprotected,
)
from torch import Tensor

from mamfed_common.model.state_dict import State
from mamfed_common.transforms.sample import Sample

ALIKE = 0.05
"""SSIM beyond the mean image's from which an image counts as recovered."""
BY_CHANCE = 0.13
"""Two standard errors of the area under the curve of 40 members and 40 strangers."""


class Size(NamedTuple):
    """How much is done: attacked patients, steps of an attack, of training, and cohorts."""

    victims: int
    attack_steps: int
    public_steps: int
    members: int
    training_steps: int
    large_site: int


FULL = Size(3, 150, 40, 40, 200, 240)
QUICK = Size(1, 30, 10, 8, 6, 0)


class Inversion(NamedTuple):
    """An inversion: its name, its protection, and the site's round.

    Attributes:
        promised: Whether nothing may be recovered; None promises nothing; False: it must be.
    """

    name: str
    protection: Protection
    promised: bool | None
    cohort: int = 1
    steps: int = 1
    batch: int = 1


INVERSIONS = (
    Inversion("1 patient, 1 step, default policy (the attack's check)", unprotected, False),
    Inversion("1 patient, 16 steps, default policy", unprotected, None, steps=16),
    Inversion("4 patients, 4 steps of 1, default policy", unprotected, None, 4, 4, 1),
    Inversion("10 patients, 10 steps of 1, default policy", unprotected, True, 10, 10, 1),
    Inversion("10 patients, 16 steps of 4, default policy", unprotected, True, 10, 16, 4),
    Inversion("1 patient, 1 step, clip and noise", clipped_and_noised, None),
    Inversion("1 patient, 16 steps, clip and noise", clipped_and_noised, None, steps=16),
    Inversion("1 patient, 1 step, DP-SGD", private, True),
    Inversion("1 patient, 16 steps, DP-SGD", private, True, steps=16),
)


def invert_all(attempts: Attempts, size: Size, seed: int, public: State, mean: Tensor) -> None:
    """Attack single updates."""
    pool = patients(seed + 1, 40)
    for inversion in INVERSIONS:
        results = []
        for victim in range(size.victims):
            own = pool[10 * victim : 10 * victim + inversion.cohort]
            site = Site(public, own, inversion.steps, inversion.batch)
            sent = inversion.protection(site)
            results.append(attack(site, sent, pool, mean, size.attack_steps))
        name, fact = f"inversion, {inversion.name}:", _in_words(results)
        recovered = sum(r.gain for r in results) / len(results) > ALIKE
        if inversion.promised is None or (inversion.promised is False and size is QUICK):
            print(f"figure  {name}  {fact}", flush=True)
        else:
            attempts.note(name, fact if recovered is inversion.promised else "", fact)


def tell_members(attempts: Attempts, size: Size, seed: int, public: State) -> None:
    """Tell training patients from strangers, and what each protection costs in Dice."""
    inside, outside = patients(seed + 2, size.members), patients(seed + 3, size.members)
    site = Site(public, inside, size.training_steps, 4)
    print(f"figure  Dice of strangers before the round:  {dice(public, outside):.3f}", flush=True)
    for name, protection, noise in (
        ("default policy", unprotected, 0.0),
        ("clip and noise", clipped_and_noised, 0.0),
        ("DP-SGD", private, 1.0),
        ("DP-SGD", private, 4.0),
    ):
        sent = protection(site := site._replace(noise=noise))
        found, allowed = membership(site, sent, outside), 1.0
        if noise:
            allowed = largest_area(site)
            name += f", noise {noise:g}, epsilon {epsilon_of(site):.1f}, area {allowed:.2f} at most"
        name = f"membership, {size.members} patients, {size.training_steps} steps of 4, {name}:"
        fact = f"area {found:.2f}; Dice of strangers {dice(sent, outside):.3f}"
        if noise and size is not QUICK:
            attempts.note(name, "" if found < allowed + BY_CHANCE else fact, fact)
        else:
            print(f"figure  {name}  {fact}", flush=True)


def cost(attempts: Attempts, size: Size, seed: int, public: State) -> None:
    """Measure the Dice that DP-SGD costs a larger site."""
    strangers = patients(seed + 3, size.members)
    site = Site(public, patients(seed + 4, size.large_site), size.training_steps, 8)
    before, after = (dice(p(site), strangers) for p in (unprotected, private))
    print(
        f"figure  cost, {size.large_site} patients, {size.training_steps} steps of 8:  Dice of "
        f"strangers {before:.3f} by default, {after:.3f} with DP-SGD at epsilon "
        f"{epsilon_of(site):.1f}",
        flush=True,
    )


def main() -> None:
    """Run both attacks; exit with 1 if a promise broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only: does it work, in seconds?")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    torch.set_num_threads(1)
    run(QUICK if options.quick else FULL, options.seed)


def run(size: Size, seed: int) -> None:
    """Run the suite in a size."""
    attempts, begun = Attempts(), time.process_time()
    others: Sequence[Sample] = patients(seed + 5, 16)
    public = public_model(others, size.public_steps)
    mean = torch.from_numpy(intensities(others)).mean(0)[None, None]
    invert_all(attempts, size, seed, public, mean)
    tell_members(attempts, size, seed, public)
    if size.large_site:
        cost(attempts, size, seed, public)
    print(f"{time.process_time() - begun:.0f} s of CPU time")
    attempts.finish()


def _in_words(results: Sequence[Recovered]) -> str:
    count = len(results)
    found = [sum(r.found.ssim for r in results) / count, sum(r.found.psnr for r in results) / count]
    plain = [sum(r.mean_ssim for r in results) / count, sum(r.mean_psnr for r in results) / count]
    first = sum(r.found.rank == 1 for r in results)
    return (
        f"SSIM {found[0]:.2f}, PSNR {found[1]:.1f} dB (mean image {plain[0]:.2f}, {plain[1]:.1f}); "
        f"recognised among 40: {first} of {count}"
    )


if __name__ == "__main__":
    main()
