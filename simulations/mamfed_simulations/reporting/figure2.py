"""The paper's figure 2: input, output and ground truth of held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from mamfed_common.metrics.detection import BoolImage
from mamfed_common.training.inference import Prediction
from mamfed_common.transforms.sample import FULL_SCALE, Sample
from mamfed_server.report.figures import ORANGE, SKY, to_png

CONTOURS = "Contours,\nenlarged"
ROWS: dict[str, Callable[[Case], npt.NDArray[Any] | None]] = {
    "Input I": lambda case: case.sample.image / FULL_SCALE,
    "Healthy tissue\nwhere marked": lambda case: case.prediction.healthy,
    "What is\nsubtracted": lambda case: case.prediction.reconstruction,
    "Output O\n(probability,\nblack 0, white 1)": lambda case: case.prediction.malignancy,
    "Ground truth M": lambda case: case.sample.mask,
}
"""Rows above the contours. A row without a picture in any case is omitted."""
COLUMNS = 9
"""Maximum cases per band; further cases go into another band below."""

LARGEST_SCALE = 4
"""Maximum magnification of the contours."""
LARGEST_SIDE = 400
"""Maximum side of a picture in a panel, in pixels."""

# Inches: side of a panel, space between panels and between sites, and the margins of a band.
SIDE, SPACE, SITE_SPACE = 1.5, 0.05, 0.22
LEFT, RIGHT, HEAD, FOOT = 1.45, 0.05, 0.72, 0.42
TRUTH: dict[str, Any] = {"color": ORANGE, "linewidth": 1.6, "linestyle": "-"}
PREDICTED: dict[str, Any] = {"color": SKY, "linewidth": 1.6, "linestyle": "--"}


@dataclass(frozen=True)
class Case:
    """One held-out image.

    Attributes:
        site: Site that holds the image.
        image: Name of the image in the site's table.
        vendor: Vendor of the mammography unit.
        dice: Dice of prediction and ground truth, 0..1.
        sample: Prepared image and its ground truth.
        prediction: Output of the chosen network.
    """

    site: str
    image: str
    vendor: str
    dice: float
    sample: Sample
    prediction: Prediction


def by_site(cases: Sequence[Case]) -> list[Case]:
    """Return cases in the column order of figure 2: by site, otherwise in the given order."""
    return sorted(cases, key=lambda case: case.site)


def draw_figure2(cases: Sequence[Case], threshold: float) -> bytes:
    """Return the figure as PNG bytes: one numbered column per case, grouped by site.

    Args:
        cases: Held-out images; at least one.
        threshold: Probability from which a pixel counts as malignant.
    """
    ordered = list(enumerate(by_site(cases), start=1))
    bands = [ordered[start : start + COLUMNS] for start in range(0, len(ordered), COLUMNS)]
    rows = [
        row for row, picture_of in ROWS.items() if any(picture_of(c) is not None for c in cases)
    ]
    band_height = HEAD + (len(rows) + 1) * (SIDE + SPACE)
    width = max(_places([case for _, case in band])[-1] for band in bands) + SIDE + RIGHT
    height = len(bands) * band_height + FOOT
    figure = Figure(figsize=(max(width, 5.5), height))
    for index, band in enumerate(bands):
        _draw_band(figure, band, rows, threshold, top=height - index * band_height)
    _draw_legend(figure, threshold)
    return to_png(figure)


def _places(cases: Sequence[Case]) -> list[float]:
    """Return the left edge of each column in inches."""
    places = [LEFT]
    for case, following in pairwise(cases):
        gap = SPACE if following.site == case.site else SITE_SPACE
        places.append(places[-1] + SIDE + gap)
    return places


def _draw_band(
    figure: Figure,
    band: Sequence[tuple[int, Case]],
    rows: Sequence[str],
    threshold: float,
    *,
    top: float,
) -> None:
    """Draw one band of cases; ``top`` is in inches from the figure's lower edge."""
    places = _places([case for _, case in band])
    for (number, case), left in zip(band, places, strict=True):
        panels = [
            _panel(figure, left, top - HEAD - (row + 1) * SIDE - row * SPACE)
            for row in range(len(rows) + 1)
        ]
        _draw_case(panels, case, rows, threshold)
        panels[0].set_title(f"{number}   Dice {case.dice:.2f}", fontsize=11, pad=4)
        if left == LEFT:
            for panel, label in zip(panels, [*rows, CONTOURS], strict=True):
                _write(panel, -0.06, 0.5, label, ha="right", va="center", fontsize=11)
    for site in dict.fromkeys(case.site for _, case in band):
        own = [left for (_, case), left in zip(band, places, strict=True) if case.site == site]
        _draw_heading(figure, site, own[0], own[-1] + SIDE, top - HEAD + 0.3)


def _draw_case(panels: Sequence[Axes], case: Case, rows: Sequence[str], threshold: float) -> None:
    image = np.asarray(case.sample.image / FULL_SCALE, np.float32)
    malignancy, truth = case.prediction.malignancy, case.sample.mask
    for panel, row in zip(panels[:-1], rows, strict=True):
        picture = ROWS[row](case)
        if picture is None:
            _write(panel, 0.5, 0.5, "none", ha="center", va="center", fontsize=9)
        else:
            _show(panel, _shrunk(np.asarray(picture, np.float32)))
    predicted = malignancy >= threshold
    left, top, side = _window(truth | predicted)
    part = (slice(top, top + side), slice(left, left + side))
    _show(panels[-1], image[part])
    _outline(panels[-1], truth[part], TRUTH)
    _outline(panels[-1], predicted[part], PREDICTED)
    _note(panels[-1], 0.05, f"{len(truth) / side:.1f}x")
    if not predicted.any():
        _note(panels[-1], 0.88, "not marked")


def _show(panel: Axes, picture: npt.NDArray[np.float32]) -> None:
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")


def _shrunk(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Downscale a large picture to panel size: drawing it at full size takes seconds."""
    if len(picture) <= LARGEST_SIDE:
        return picture
    small = cv2.resize(picture, (LARGEST_SIDE, LARGEST_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _window(marked: BoolImage) -> tuple[int, int, int]:
    """Return left, top and side of a square within the image around the marked pixels."""
    size = len(marked)
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if not len(rows):
        return 0, 0, size
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = min(size, max(int(1.6 * extent), size // LARGEST_SCALE))
    left, top = ((int(ends[0] + ends[-1]) - side) // 2 for ends in (columns, rows))
    return min(max(left, 0), size - side), min(max(top, 0), size - side), side


def _outline(panel: Axes, mask: BoolImage, look: dict[str, Any]) -> None:
    """Draw the outline of a mask, closed along the panel's edges."""
    if not mask.any():
        return
    padded: npt.NDArray[np.float32] = np.pad(mask.astype(np.float32), 1)
    rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
    lines = panel.contour(
        columns,
        rows,
        padded,
        levels=[0.5],
        colors=look["color"],
        linewidths=look["linewidth"],
        linestyles=look["linestyle"],
    )
    panel.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
    # A dark rim keeps the line visible on bright tissue.
    lines.set_path_effects([withStroke(linewidth=look["linewidth"] + 1.2, foreground="#00000099")])


def _draw_heading(figure: Figure, site: str, left: float, right: float, bottom: float) -> None:
    """Write a site's name above a rule as wide as its columns; positions in inches."""
    width, height = figure.get_size_inches()
    ends = [left / width, right / width]
    figure.add_artist(Line2D(ends, [bottom / height] * 2, color="black", linewidth=1))
    name = site if len(site) <= 14 * (right - left) / SIDE else f"{site[:12]}…"
    middle, above = sum(ends) / 2, (bottom + 0.07) / height
    figure.text(middle, above, name, ha="center", fontsize=12, fontweight="bold", parse_math=False)


def _draw_legend(figure: Figure, threshold: float) -> None:
    handles = [
        Line2D([], [], **TRUTH, label="ground truth"),
        Line2D([], [], **PREDICTED, label=f"predicted, probability ≥ {threshold:g}"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=11)


def _panel(figure: Figure, left: float, bottom: float) -> Axes:
    """Add a square panel without ticks; positions in inches."""
    width, height = figure.get_size_inches()
    panel = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)
    return panel


def _note(panel: Axes, height: float, text: str) -> None:
    """Write white text with a dark rim, readable on any tissue."""
    words = _write(panel, 0.05, height, text, color="white", fontsize=9)
    words.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _write(panel: Axes, x: float, y: float, text: str, **look: Any) -> Text:
    """Write text at panel coordinates, 0..1."""
    return panel.text(x, y, text, transform=panel.transAxes, **look)
