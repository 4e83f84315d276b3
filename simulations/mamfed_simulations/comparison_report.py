"""What a comparison of federations has to say, arm by arm and site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mamfed_common import __version__
from mamfed_common.intervals import Interval, paired_difference, patient_bootstrap
from mamfed_server.report.figures import SITE_COLOURS, SITE_MARKERS, frame, to_png
from mamfed_simulations.comparison import FEDAVG, MEANINGS, ArmOutcome, Comparison, SiteResult
from mamfed_simulations.pages import (
    Account,
    Picture,
    Table,
    interval_text,
    interval_values,
)

NO_FIGURE = "n/a"

Outcomes = Mapping[str, ArmOutcome]


def dice_of(result: SiteResult) -> Interval | None:
    """Return a site's mean Dice over seeds and images; None without an image with malignancy."""
    return patient_bootstrap(result.patients, result.dice) if result.patients else None


def false_positives_of(result: SiteResult) -> Interval | None:
    """Return the mean marked share of images without malignancy; None where there is none."""
    if not result.other_patients:
        return None
    return patient_bootstrap(result.other_patients, result.false_positives)


def mean_over_sites(outcome: ArmOutcome) -> float | None:
    """Return the mean over sites of their mean Dice, each site counting once."""
    means = [float(r.dice.mean()) for r in outcome.sites.values() if r.patients]
    return float(np.mean(means)) if means else None


def fedavg_minus(outcomes: Outcomes, arm: str, site: str) -> Interval | None:
    """Return FedAvg's mean Dice minus an arm's at a site, paired by patient; None without both."""
    pair = [outcomes[name].sites.get(site) for name in (arm, FEDAVG) if name in outcomes]
    if arm == FEDAVG or len(pair) < 2 or any(r is None or not r.patients for r in pair):
        return None
    other, fedavg = (r for r in pair if r is not None)
    if len(other.dice) != len(fedavg.dice):
        return None
    return paired_difference(other.patients, other.dice, fedavg.dice)


def results_of(comparison: Comparison, outcomes: Outcomes) -> dict[str, Any]:
    """Return what ``results.json`` holds."""
    return {
        "mamfed_version": __version__,
        "plan_sha256": comparison.plan.sha256(),
        "seeds": list(comparison.seeds),
        "arms": {
            name: {
                "mean_over_sites": _rounded(mean_over_sites(outcome)),
                "sites": {
                    site: _values(outcomes, name, site, result)
                    for site, result in outcome.sites.items()
                },
                "missing": outcome.missing,
            }
            for name, outcome in outcomes.items()
        },
    }


def account_of(
    comparison: Comparison, outcomes: Outcomes, command: str, left_out: Sequence[str]
) -> Account:
    """Return the tables, notes and picture of a comparison."""
    sites = [site.name for site in comparison.sites]
    size = comparison.plan.image_size
    return Account(
        title=f"mamfed federation: {', '.join(sites)} at {size} x {size}",
        command=command,
        plan=comparison.plan,
        tables=_tables(outcomes, sites),
        notes=[*_notes(comparison, outcomes), *left_out],
        pictures=[
            Picture(
                "dice.png",
                "Dice by site and arm",
                "Mean Dice of each arm at each site with its interval; the table has the numbers",
                "Bars: 95 % over test patients. A site without malignant test images is not drawn.",
                draw_dice(outcomes, sites),
            )
        ],
    )


def draw_dice(outcomes: Outcomes, sites: Sequence[str]) -> bytes:
    """Draw each arm's Dice at each site with its interval, as PNG bytes."""
    rated = [
        s for s in sites if any(s in o.sites and o.sites[s].patients for o in outcomes.values())
    ]
    figure = Figure(figsize=(max(6.0, 2.6 * len(rated)), 4.2), layout="constrained")
    axes = figure.subplots()
    frame(axes, "Mean Dice on test images with malignancy", rounds=False)
    for index, (name, outcome) in enumerate(outcomes.items()):
        colour, marker = SITE_COLOURS[index % 6], SITE_MARKERS[index % 7]
        shift = (index - (len(outcomes) - 1) / 2) * 0.12
        label = name
        for place, site in enumerate(rated):
            figures = site in outcome.sites and dice_of(outcome.sites[site])
            if not figures:
                continue
            value, low, high = figures[:3]
            ends = (
                [[0.0], [0.0]] if low is None or high is None else [[value - low], [high - value]]
            )
            axes.errorbar(
                [place + shift],
                [value],
                yerr=ends,
                color=colour,
                marker=marker,
                label=label,
                capsize=3,
            )
            label = "_"
    axes.set_xticks(range(len(rated)), [site.replace("$", r"\$") for site in rated])
    axes.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return to_png(figure)


def _tables(outcomes: Outcomes, sites: Sequence[str]) -> list[Table]:
    dice, false, found, differences = [], [], [], []
    for name, outcome in outcomes.items():
        results = [outcome.sites.get(site) for site in sites]
        mean = mean_over_sites(outcome)
        dice.append([name, *(_dice_cell(r) for r in results), _number(mean)])
        false.append([name, *(_false_cell(r) for r in results)])
        found.append([name, *(_found_cell(r) for r in results)])
        if name != FEDAVG and FEDAVG in outcomes:
            pairs = [fedavg_minus(outcomes, name, site) for site in sites]
            differences.append(
                [name, *(interval_text(p, signed=True) if p else NO_FIGURE for p in pairs)]
            )
    tables = [
        Table(
            "Dice [95 % over patients] (images, patients)", ["arm", *sites, "mean of sites"], dice
        ),
        Table("Marked share of images without malignancy (images)", ["arm", *sites], false),
        Table("Lesions found, mean over seeds", ["arm", *sites], found),
    ]
    if differences:
        tables.append(Table("Dice of fedavg minus the arm's, paired", ["arm", *sites], differences))
    return tables


def _notes(comparison: Comparison, outcomes: Outcomes) -> list[str]:
    missing = [
        f"{name}: {what}: no result: {reason}"
        for name, outcome in outcomes.items()
        for what, reason in outcome.missing.items()
    ]
    return [
        f"{len(comparison.seeds)} seeds; the patients held out are the same for all. Intervals: 95 "
        "%, bootstrap over test patients; they do not hold the seeds' own scatter.",
        "Each arm's best round and threshold are chosen on validation patients of the sites that "
        "train; leave-one-out never sees the tested site.",
        *(f"{name}: {MEANINGS[name]}." for name in outcomes),
        *missing,
    ]


def _values(outcomes: Outcomes, arm: str, site: str, result: SiteResult) -> dict[str, Any]:
    named = {
        "dice": dice_of(result),
        "false_positive_share": false_positives_of(result),
        "fedavg_minus_this": fedavg_minus(outcomes, arm, site),
    }
    return {
        **{key: figure and interval_values(figure) for key, figure in named.items()},
        "dice_by_seed": np.round(result.dice.mean(axis=-1), 4).tolist() if result.patients else [],
        "lesions": result.lesions,
        "lesions_found": round(result.lesions_found, 2),
    }


def _dice_cell(result: SiteResult | None) -> str:
    figure = dice_of(result) if result else None
    if figure is None:
        return NO_FIGURE
    return f"{interval_text(figure)} ({figure.images}, {figure.patients})"


def _false_cell(result: SiteResult | None) -> str:
    figure = false_positives_of(result) if result else None
    return f"{figure.value:.2%} ({figure.images})" if figure else NO_FIGURE


def _found_cell(result: SiteResult | None) -> str:
    if result is None or not result.lesions:
        return NO_FIGURE
    return f"{result.lesions_found:.1f} of {result.lesions}"


def _number(value: float | None) -> str:
    return NO_FIGURE if value is None else f"{value:.3f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
