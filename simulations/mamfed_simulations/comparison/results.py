"""Compute the figures of a comparison: each arm's results per site, and differences of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mamfed_common import __version__
from mamfed_common.metrics.bootstrap import (
    Group,
    Interval,
    mean_of_groups,
    paired_difference,
    patient_bootstrap,
)
from mamfed_common.metrics.detection import RATES
from mamfed_simulations.comparison.compare import ArmOutcome
from mamfed_simulations.comparison.design import CENTRALISED, FEDAVG, LOCAL, PERSONAL, Comparison
from mamfed_simulations.comparison.scores import SiteResult
from mamfed_simulations.reporting.pages import interval_values

Outcomes = Mapping[str, ArmOutcome]

OURS = (FEDAVG, PERSONAL)
"""The arms that a federation offers its sites; they should beat the reference arms."""
YARDSTICKS = (LOCAL, CENTRALISED)


def dice_of(result: SiteResult) -> Interval | None:
    """Return a site's mean Dice at 0.5 over seeds and images; None without a malignant image."""
    return patient_bootstrap(result.patients, result.dice) if result.patients else None


def dice_chosen_of(result: SiteResult) -> Interval | None:
    """Return a site's mean Dice at the thresholds that validation chose."""
    return patient_bootstrap(result.patients, result.dice_chosen) if result.patients else None


def marked_of(result: SiteResult) -> Interval | None:
    """Return the mean marked share of the breast on images without malignancy, if there are any."""
    if not result.other_patients:
        return None
    return patient_bootstrap(result.other_patients, result.marked)


def difference(outcomes: Outcomes, arm: str, other: str, site: str) -> Interval | None:
    """Return an arm's mean Dice at 0.5 minus another's at a site, paired by image.

    Only seeds that both arms have count. None without a common seed or a malignant image.
    """
    group = _difference(outcomes, arm, other, site)
    if group is None:
        return None
    return paired_difference(group.patients, np.zeros_like(group.values), group.values)


def mean_difference(
    outcomes: Outcomes, arm: str, other: str, sites: Sequence[str]
) -> Interval | None:
    """Return the mean over sites of :func:`difference`, with equal weight per site."""
    by_site = [_difference(outcomes, arm, other, site) for site in sites]
    groups = [group for group in by_site if group is not None]
    return mean_of_groups(groups) if groups else None


def mean_over_sites(outcome: ArmOutcome) -> Interval | None:
    """Return the mean over sites of their mean Dice at 0.5, with equal weight per site."""
    groups = [Group(r.patients, r.dice) for r in outcome.sites.values() if r.patients]
    return mean_of_groups(groups) if groups else None


def worst_first(outcomes: Outcomes, sites: Sequence[str]) -> list[str]:
    """Sort sites by the federation's difference from local training, the largest loss first.

    Sites without such a difference come last.
    """

    def worst_difference(site: str) -> float:
        differences = [difference(outcomes, arm, LOCAL, site) for arm in OURS]
        return min((d.value for d in differences if d is not None), default=np.inf)

    return sorted(sites, key=worst_difference)


def results_of(
    comparison: Comparison, outcomes: Outcomes, verdicts: Sequence[str]
) -> dict[str, Any]:
    """Return the content of ``results.json``; ``verdicts`` state its figures in words."""
    sites = [site.name for site in comparison.sites]
    return {
        "mamfed_version": __version__,
        "plan_sha256": comparison.plan.sha256(),
        "seeds": list(comparison.seeds),
        "folds": comparison.folds,
        "worst_first": worst_first(outcomes, sites),
        "verdicts": list(verdicts),
        "arms": {
            name: {
                "mean_over_sites": _values(mean_over_sites(outcome)),
                "minus": {
                    other: _values(mean_difference(outcomes, name, other, sites))
                    for other in outcomes
                    if other != name
                },
                "sites": {
                    site: _site_values(outcomes, name, site, result)
                    for site, result in outcome.sites.items()
                },
                "missing": outcome.missing,
            }
            for name, outcome in outcomes.items()
        },
    }


def _difference(outcomes: Outcomes, arm: str, other: str, site: str) -> Group | None:
    """Return the differences image by image, ``(seeds, images)``."""
    pair = [outcomes[name].sites.get(site) for name in (arm, other) if name in outcomes]
    results = [result for result in pair if result is not None and result.patients]
    if arm == other or len(results) < 2:
        return None
    mine, theirs = results
    seeds = [seed for seed in mine.seeds if seed in theirs.seeds]
    if not seeds:
        return None
    first = mine.dice[[mine.seeds.index(seed) for seed in seeds]]
    second = theirs.dice[[theirs.seeds.index(seed) for seed in seeds]]
    return Group(mine.patients, first - second)


def _site_values(outcomes: Outcomes, arm: str, site: str, result: SiteResult) -> dict[str, Any]:
    by_seed = result.dice_by_seed()
    return {
        "dice": _values(dice_of(result)),
        "dice_at_chosen_threshold": _values(dice_chosen_of(result)),
        "marked_share_of_breast": _values(marked_of(result)),
        "minus": {
            other: _values(difference(outcomes, arm, other, site))
            for other in outcomes
            if other != arm
        },
        "seeds": list(result.seeds),
        "dice_by_seed": np.round(by_seed, 4).tolist(),
        "dice_deviation_over_seeds": _deviation(by_seed),
        "lesions": result.lesions,
        "lesions_found": round(result.lesions_found, 2),
        "sensitivity_at": result.sensitivity_at
        and {f"{r:g}": round(s, 4) for r, s in zip(RATES, result.sensitivity_at, strict=True)},
    }


def _deviation(by_seed: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds; None for a single seed."""
    return round(float(np.std(by_seed, ddof=1)), 4) if len(by_seed) > 1 else None


def _values(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval_values(interval)
