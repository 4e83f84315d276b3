"""Confidence intervals over patients, by a cluster bootstrap.

The images of a patient resemble each other, so they are resampled together (Davison and Hinkley,
*Bootstrap Methods and their Application*, 1997, 3.8). Resampling images would give intervals that
are too narrow.
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
"""Percentage of resamples within an interval."""


class Interval(NamedTuple):
    """A statistic with its 95 % percentile interval over patients, and the counts behind it.

    Attributes:
        value: The statistic of all images, without resampling.
        low: Lower end; None with fewer than two patients.
        high: Upper end; None if ``low`` is.
        patients: Number of patients.
        images: Number of their images.
    """

    value: float
    low: float | None
    high: float | None
    patients: int
    images: int


def mean(values: np.ndarray) -> float:
    """Return the mean of all values; this statistic is resampled without a loop."""
    return float(np.mean(values))


def patient_bootstrap(
    patients: Sequence[Hashable],
    values: Values,
    statistic: Statistic = mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a statistic over images with its interval over patients.

    Args:
        patients: The patient of each image.
        values: ``(..., images)``, with any leading axes, such as ``(seeds, epochs, images)``.
        statistic: Called with ``values`` whose last axis holds the images of one resample, some of
            them repeated. Resamples for which it returns NaN do not count towards the interval.
        resamples: Number of resamples, each of as many patients, drawn with replacement.
        seed: Seed of the resamples. The same patients in the same order give the same resamples.

    Raises:
        ValueError: There is no image, or not exactly one patient per image.
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
    """Return the statistic of ``second`` minus that of ``first``, with the same resamples.

    Arguments and errors are those of :func:`patient_bootstrap`; image ``i`` is the same in both.
    """
    draws = _draws(patients, resamples, seed)
    before, after = (_resampled(patients, v, statistic, draws) for v in (first, second))
    value = float(statistic(np.asarray(second))) - float(statistic(np.asarray(first)))
    return _interval(patients, value, after - before)


class Group(NamedTuple):
    """Images of a group of patients, such as those of a site.

    Attributes:
        patients: The patient of each image.
        values: ``(..., images)``, with any leading axes.
    """

    patients: Sequence[Hashable]
    values: Values


def mean_of_groups(groups: Sequence[Group], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the unweighted mean of the groups' means, with its interval.

    Patients are resampled within their group; the groups themselves are fixed.

    Raises:
        ValueError: There is no group, or a group has no image.
    """
    if not groups:
        raise ValueError("no group to average: expected at least one")
    sampled = [
        _resampled(g.patients, g.values, mean, _draws(g.patients, resamples, seed + i))
        for i, g in enumerate(groups)
    ]
    all_patients = [(i, patient) for i, g in enumerate(groups) for patient in g.patients]
    value = float(np.mean([mean(np.asarray(g.values)) for g in groups]))
    return _interval(all_patients, value, np.mean(sampled, axis=0))


def _draws(patients: Sequence[Hashable], resamples: int, seed: int) -> Draws:
    """Return how often each resample draws each patient: ``(resamples, patients)``.

    Patients are in order of first appearance.
    """
    count = len(set(patients))
    if not count:
        raise ValueError("no image to resample: expected at least one")
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    flat = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * count).reshape(resamples, count)


def _resampled(
    patients: Sequence[Hashable], values: Values, statistic: Statistic, draws: Draws
) -> np.ndarray:
    """Return the statistic of each resample: ``(resamples,)``."""
    images = np.asarray(values)
    if images.shape[-1] != len(patients):
        raise ValueError(f"{images.shape[-1]} values for {len(patients)} images: expected one each")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owner = np.array([numbers[patient] for patient in patients])
    if statistic is mean:
        of_image = images.reshape(-1, len(owner)).mean(axis=0)
        sums = np.bincount(owner, weights=of_image)
        return np.asarray((draws @ sums) / (draws @ np.bincount(owner)))
    place = np.arange(len(owner))
    return np.array([statistic(images[..., np.repeat(place, d[owner])]) for d in draws])


def _interval(patients: Sequence[Hashable], value: float, resampled: np.ndarray) -> Interval:
    """Return the percentile interval of the resamples."""
    count = len(set(patients))
    defined = resampled[~np.isnan(resampled)]
    if count < 2 or not len(defined):
        return Interval(value, None, None, count, len(patients))
    low, high = np.percentile(defined, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(value, float(low), float(high), count, len(patients))
