"""Draw the test Dice by epoch of every row of a study."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from mamfed_server.report.figures import DASHES, SITE_COLOURS, frame, to_png


def draw_study_curves(rows: Mapping[str, np.ndarray]) -> bytes:
    """Return a PNG of the mean over seeds and the range from the lowest to the highest seed.

    Args:
        rows: Mean test Dice ``(seeds, epochs)`` by the label of the row.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    frame(axes, "Mean Dice on the test images, by epoch of stage 2")
    axes.set_xlabel("epoch")
    looks = zip(cycle(SITE_COLOURS), cycle([(), *DASHES]), strict=False)
    for (label, dice), (colour, dashes) in zip(rows.items(), looks, strict=False):
        epochs = np.arange(1, dice.shape[1] + 1)
        line = axes.plot(epochs, dice.mean(axis=0), color=colour, linewidth=1.8, label=label)[0]
        if dashes:
            line.set_dashes(dashes)
        axes.fill_between(epochs, dice.min(axis=0), dice.max(axis=0), color=colour, alpha=0.15)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return to_png(figure)
