"""Simulate how many validation images make it worth choosing a personal model's share.

Usage: python -m benchmarks.quality.choosing_share [--trials 40000]

Nothing is trained. Each trial draws a site with known true mean Dice at each share, then its
validation images, then the share that a rule chooses by them. The result is the true mean at the
chosen share minus that at one half, free of luck. There are two kinds of site:

* *measured*: the six curves of test Dice by share of the runs behind the default share
  (``docs/decisions/0033-personal-model.md``); one half is about the best in each;
* *drawn*: a parabola over the share with its maximum anywhere from 0 to 1, scaled so that the other
  shares differ from one half by at most 0.01, 0.02 or 0.05.

An image's Dice at the shares 0 and 1 differs by 0.2 (standard deviation), most of it shared by the
two images of a patient. This matches how far those runs' validation means lay from their test
means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SHARES = np.array([0.0, 0.25, 0.5, 1.0])
HALF = 2
EASE = 0.22
"""Standard deviation of the part of an image's Dice that does not depend on the share."""
LIKING = 0.2
"""Standard deviation of its difference between the shares 0 and 1; proportional in between."""
OF_PATIENT = 0.7
"""Fraction of both variances that is common to a patient's images."""
OWN = 0.02
"""Standard deviation of the remainder, independent for each image and share."""
A_PATIENT = 2
IMAGES = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
MEASURED = np.array(
    [
        [0.560, 0.581, 0.588, 0.584],
        [0.526, 0.587, 0.594, 0.330],
        [0.591, 0.595, 0.595, 0.592],
        [0.570, 0.574, 0.575, 0.564],
        [0.585, 0.596, 0.594, 0.570],
        [0.355, 0.456, 0.547, 0.506],
    ]
)
LARGEST = (0.01, 0.02, 0.05)
MOST_LOST = 0.01

Rule = Callable[[np.ndarray], np.ndarray]


class Gains(NamedTuple):
    """True Dice at the chosen shares minus that at one half, with so many validation images.

    Attributes:
        measured: The mean over the measured sites.
        worst_measured: At the one of them that loses most.
        drawn: The mean over drawn sites, by :data:`LARGEST`.
        worst_drawn: The mean over the drawn sites whose best share is nearest to one half: those
            that choosing can only harm.
    """

    measured: float
    worst_measured: float
    drawn: tuple[float, ...]
    worst_drawn: float

    @property
    def safe(self) -> bool:
        """Whether choosing gains wherever it can and loses little elsewhere."""
        return min(self.drawn) > 0 and min(self.worst_measured, self.worst_drawn) >= -MOST_LOST


def images_of(true: np.ndarray, images: int, rng: np.random.Generator) -> np.ndarray:
    """Return the Dice of each site's validation images: ``(sites, images, shares)``."""
    patients = -(-images // A_PATIENT)

    def drawn(spread: float) -> np.ndarray:
        common = rng.normal(0, spread * OF_PATIENT**0.5, (len(true), patients, 1))
        own = rng.normal(0, spread * (1 - OF_PATIENT) ** 0.5, (len(true), images, 1))
        return np.repeat(common, A_PATIENT, axis=1)[:, :images] + own

    noise = rng.normal(0, OWN, (len(true), images, len(SHARES)))
    dice = true[:, None] + drawn(EASE) + drawn(LIKING) * SHARES + noise
    return np.clip(dice, 0, 1)


def highest(dice: np.ndarray) -> np.ndarray:
    """Choose the share with the highest mean."""
    return np.argmax(dice.mean(axis=1), axis=1)


def one_error(dice: np.ndarray) -> np.ndarray:
    """Choose one half unless another share is better by a standard error of the difference."""
    return _unless_better(dice, 1.0)


def two_errors(dice: np.ndarray) -> np.ndarray:
    """Choose one half unless another share is better by two standard errors."""
    return _unless_better(dice, 2.0)


def _unless_better(dice: np.ndarray, errors: float) -> np.ndarray:
    """Patients count, not images: the standard error is over their means."""
    sites, images, shares = dice.shape
    whole = images // A_PATIENT * A_PATIENT
    of_patients = dice[:, :whole].reshape(sites, -1, A_PATIENT, shares).mean(axis=2)
    difference = of_patients - of_patients[:, :, HALF : HALF + 1]
    patients = difference.shape[1]
    if patients < 2:
        return np.full(sites, HALF)
    mean = difference.mean(axis=1)
    error = difference.std(axis=1, ddof=1) / np.sqrt(patients)
    gain = np.where(mean > errors * error, mean, -1.0)
    gain[:, HALF] = 0.0
    return np.argmax(gain, axis=1)


RULES: dict[str, Rule] = {
    "the highest mean": highest,
    "one standard error": one_error,
    "two standard errors": two_errors,
}


def gains(rule: Rule, images: int, trials: int) -> Gains:
    """Return a rule's gain for a number of validation images."""
    rng = np.random.default_rng([0, images])
    by_site = np.array([_gain(rule, np.tile(t, (trials, 1)), images, rng)[0] for t in MEASURED])
    drawn, near = [], []
    for largest in LARGEST:
        top = rng.uniform(0, 1, trials)
        curve = -((SHARES - top[:, None]) ** 2)
        curve -= curve[:, HALF : HALF + 1]
        curve *= largest / np.abs(curve).max(axis=1, keepdims=True)
        _, gained = _gain(rule, 0.5 + curve, images, rng)
        drawn.append(float(gained.mean()))
        near.append(float(gained[np.abs(top - 0.5) < 0.125].mean()))
    return Gains(float(by_site.mean()), float(by_site.min()), tuple(drawn), min(near))


def _gain(
    rule: Rule, true: np.ndarray, images: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    chosen = rule(images_of(true, images, rng))
    gained = true[np.arange(len(true)), chosen] - true[:, HALF]
    return float(gained.mean()), gained


def main() -> None:
    """Print a table for each rule, and the number of images from which it is safe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=int, default=40000, help="number of sites drawn; fewer for large sites"
    )
    trials = parser.parse_args().trials
    for name, rule in RULES.items():
        print(f"\nRule: {name}. Dice at the chosen share minus that at one half\n")
        heads = ["measured", "worst measured", *(f"drawn, up to {d:g}" for d in LARGEST)]
        print("| images | " + " | ".join([*heads, "drawn, half best"]) + " |")
        print("|" + "--:|" * (len(heads) + 2))
        found = {n: gains(rule, n, max(500, 4 * trials // n)) for n in IMAGES}
        for images, g in found.items():
            cells = [g.measured, g.worst_measured, *g.drawn, g.worst_drawn]
            print(f"| {images} | " + " | ".join(f"{value:+.4f}" for value in cells) + " |")
        first = next((n for n in IMAGES if all(found[m].safe for m in IMAGES if m >= n)), None)
        where = f"from {first} images on" if first else "at no number of images here"
        print(f"\nGains where it can, and loses at most {MOST_LOST} where it cannot: {where}")


if __name__ == "__main__":
    main()
