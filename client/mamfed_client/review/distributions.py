"""Compute the bar charts and histograms of a folder's images for a page to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from mamfed_common.runtime.wording import counted

BINS = 24
"""Approximate number of bins of a linear histogram."""
BINS_PER_DECADE = 4
"""Bins of a logarithmic histogram per power of ten."""
SMALLEST_POWER = -4
"""Lower limit of a logarithmic axis, as a power of ten; smaller values fall in the first bin."""
MAX_BARS = 9
"""Rarer names are combined in one more bar, as vendors may be spelled in many ways."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts by name.

    Attributes:
        title: What is counted.
        rows: Name, count, and share of the total, 0..1.
        note: What the names mean.
    """

    title: str
    rows: list[tuple[str, int, float]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """The distribution of a quantity.

    Attributes:
        title: The quantity.
        caption: The number of values, their median and their extremes.
        heights: One per bin, relative to the tallest, 0..1; empty if all values are equal.
        ticks: Positions on the axis, 0..1, and their labels.
    """

    title: str
    caption: str
    heights: list[float]
    ticks: list[tuple[float, str]]


def bars(title: str, counts: Mapping[str, int], note: str = "") -> Bars:
    """Return counts as shares of their sum; those after the first ``MAX_BARS`` are combined."""
    total = max(1, sum(counts.values()))
    rows = list(counts.items())
    rest = rows[MAX_BARS:]
    if len(rest) > 1:
        rows = [*rows[:MAX_BARS], (f"{len(rest)} others", sum(count for _, count in rest))]
    return Bars(title, [(name, count, count / total) for name, count in rows], note)


def histogram(title: str, values: Mapping[int, float], unit: str = "") -> Histogram | None:
    """Count values in bins of equal width.

    Args:
        title: What is measured.
        values: Values by row number; the caption names the rows of the extremes.
        unit: Suffix of every number, such as `` mm`` or ``%``.

    Returns:
        The histogram, or None if there are no values.
    """
    if not values:
        return None
    low, high = min(values.values()), max(values.values())
    if _number(low) == _number(high):
        return Histogram(title, _caption(values, unit), [], [])
    edges = _round_edges(low, high)
    last = len(edges) - 1
    ticks = [(i / last, _number(edges[i]) + unit) for i in sorted({0, last // 2, last})]
    return _counted(title, values, unit, edges, ticks)


def log_histogram(title: str, values: Mapping[int, float], unit: str = "") -> Histogram | None:
    """Count positive values in bins of equal ratio, between powers of ten.

    Args:
        title: What is measured.
        values: Values by row number.
        unit: Suffix of every number.

    Returns:
        The histogram, or None if there are no values.
    """
    if not values:
        return None
    first = max(SMALLEST_POWER, math.floor(math.log10(min(values.values()))))
    last = max(first + 1, math.ceil(math.log10(max(values.values()))))
    edges = np.logspace(first, last, (last - first) * BINS_PER_DECADE + 1)
    powers = range(first, last + 1, math.ceil((last - first) / 4))
    ticks = [((p - first) / (last - first), _number(10.0**p) + unit) for p in powers]
    return _counted(title, values, unit, edges, ticks)


def grey_histograms(levels: Mapping[str, Sequence[npt.NDArray[np.float64]]]) -> list[Histogram]:
    """Average the grey levels of each vendor's images, on one scale for all vendors.

    Args:
        levels: Shares of the breast's pixels by grey level, one array per image, by vendor.
    """
    means = {vendor: np.mean(images, axis=0) for vendor, images in levels.items()}
    tallest = max((float(mean.max()) for mean in means.values()), default=1.0)
    return [
        Histogram(
            vendor,
            counted(len(levels[vendor]), "image"),
            [float(share) / tallest for share in mean],
            [(0.0, "black"), (1.0, "white")],
        )
        for vendor, mean in means.items()
    ]


def _counted(
    title: str,
    values: Mapping[int, float],
    unit: str,
    edges: npt.NDArray[np.float64],
    ticks: list[tuple[float, str]],
) -> Histogram:
    inside = np.clip(list(values.values()), edges[0], edges[-1])
    counts, _ = np.histogram(inside, edges)
    heights = [float(count) for count in counts / counts.max()]
    return Histogram(title, _caption(values, unit), heights, ticks)


def _caption(values: Mapping[int, float], unit: str) -> str:
    """Describe the median and the rows of the extremes, which are the most likely errors."""
    low, high = (pick(values, key=lambda row: values[row]) for pick in (min, max))
    images = counted(len(values), "image")
    if _number(values[low]) == _number(values[high]):
        return f"{images}, all {_number(values[low])}{unit}"
    smallest, largest = (
        f"{_number(values[row])}{unit} (row\N{NO-BREAK SPACE}{row})" for row in (low, high)
    )
    middle = f"{_number(median(values.values()))}{unit}"
    return f"{images}, median {middle}, range {smallest} to {largest}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.3g}"


def _round_edges(low: float, high: float) -> npt.NDArray[np.float64]:
    """Return bin edges at multiples of 1, 2 or 5 times a power of ten that enclose all values."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / BINS))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * BINS >= span)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return np.arange(first, last + 1, dtype=np.float64) * step
