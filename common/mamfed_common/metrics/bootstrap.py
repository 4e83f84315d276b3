"""Intervals over patients: how far a figure would move with other patients of the same kind.

A cluster bootstrap (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, 3.8):
a patient's images are alike, so they are drawn together. Drawing images would give intervals
that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating] | npt.NDArray[np.integer] | npt.NDArray[np.bool_]
Statistic = Callable[[np.ndarray], float]
Draws = npt.NDArray[np.int64]

LEVEL = 95.0
"""Per cent of resamples between an interval's ends."""


class Interval(NamedTuple):
    """A figure with its 95 % percentile interval over patients, and the counts behind it.

    Attributes:
        value: The figure, of all images as they are.
        low: Lower end; None with fewer than two patients, who say nothing about others.
        high: Upper end; None where ``low`` is.
        patients: Patients behind the figure.
        images: Their images.
    """

    value: float
    low: float | None
    high: float | None
    patients: int
    images: int


def mean(values: np.ndarray) -> float:
    """Return the mean of all values: the statistic whose resamples need no loop."""
    return float(np.mean(values))


def patient_bootstrap(
    patients: Sequence[Hashable],
    values: Values,
    statistic: Statistic = mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of images' values with its interval over patients.

    Args:
        patients: The patient of each image.
        values: ``(..., images)``, with any leading axes, such as ``(seeds, epochs, images)``.
        statistic: Gets ``values`` with the images of one resample on the last axis, some of them
            more than once. A resample for which it gives NaN is left out of the interval.
        resamples: How many times as many patients are drawn, with replacement.
        seed: Of the draws. The same patients in the same order give the same draws.

    Raises:
        ValueError: No image, or not one patient for each.
    """
    draws = _draws(patients, resamples, seed)
    resampled = _resampled(patients, values, statistic, draws)
    return _interval(patients, float(statistic(np.asarray(values))), resampled)


def paired_difference(
    patients: Sequence[Hashable],
    first: Values,
    second: Values,
    statistic: Statistic = mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return ``second`` minus ``first`` in a statistic, with both resampled by the same draws.

    Arguments and errors are those of :func:`patient_bootstrap`; image ``i`` is the same in both.
    """
    draws = _draws(patients, resamples, seed)
    before, after = (_resampled(patients, v, statistic, draws) for v in (first, second))
    value = float(statistic(np.asarray(second))) - float(statistic(np.asarray(first)))
    return _interval(patients, value, after - before)


class Group(NamedTuple):
    """Images of some patients, such as a site's.

    Attributes:
        patients: The patient of each image.
        values: ``(..., images)``, with any leading axes.
    """

    patients: Sequence[Hashable]
    values: Values


def mean_of_groups(groups: Sequence[Group], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the mean over groups of their means, each counting once, with its interval.

    Patients are drawn within their group: the groups themselves are as they are.

    Raises:
        ValueError: There is no group, or one without an image.
    """
    if not groups:
        raise ValueError("no group to average: expected at least one")
    sampled = [
        _resampled(g.patients, g.values, mean, _draws(g.patients, resamples, seed + i))
        for i, g in enumerate(groups)
    ]
    everybody = [(i, patient) for i, g in enumerate(groups) for patient in g.patients]
    value = float(np.mean([mean(np.asarray(g.values)) for g in groups]))
    return _interval(everybody, value, np.mean(sampled, axis=0))


def _draws(patients: Sequence[Hashable], resamples: int, seed: int) -> Draws:
    """Return how often each patient, by first appearance, is drawn: ``(resamples, patients)``."""
    count = len(set(patients))
    if not count:
        raise ValueError("no image to resample: expected at least one")
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    flat = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * count).reshape(resamples, count)


def _resampled(
    patients: Sequence[Hashable], values: Values, statistic: Statistic, draws: Draws
) -> np.ndarray:
    """Return the statistic of every resample: ``(resamples,)``."""
    images = np.asarray(values)
    if images.shape[-1] != len(patients):
        raise ValueError(f"{images.shape[-1]} values an image: expected {len(patients)}, as named")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owner = np.array([numbers[patient] for patient in patients])
    if statistic is mean:
        of_image = images.reshape(-1, len(owner)).mean(axis=0)
        sums = np.bincount(owner, weights=of_image)
        return np.asarray((draws @ sums) / (draws @ np.bincount(owner)))
    place = np.arange(len(owner))
    return np.array([statistic(images[..., np.repeat(place, d[owner])]) for d in draws])


def _interval(patients: Sequence[Hashable], value: float, resampled: np.ndarray) -> Interval:
    """Cut the interval out of the resamples."""
    count = len(set(patients))
    defined = resampled[~np.isnan(resampled)]
    if count < 2 or not len(defined):
        return Interval(value, None, None, count, len(patients))
    low, high = np.percentile(defined, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(value, float(low), float(high), count, len(patients))
