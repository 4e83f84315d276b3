"""Draw a comparison: each arm's Dice at each site."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from mamfed_server.report.figures import SITE_COLOURS, SITE_MARKERS, frame, to_png
from mamfed_simulations.comparison.results import Outcomes, dice_of


def draw_dice(outcomes: Outcomes, sites: Sequence[str]) -> bytes:
    """Return a chart of each arm's Dice at 0.5 per site, with intervals, as PNG bytes."""
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
