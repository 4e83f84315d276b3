"""Measure each stage from a decoded mammogram to a sample, beside plain scikit-image.

The peer finds the breast by Otsu's threshold and the largest region, and rescales with
``transform.resize(anti_aliasing=True)``; it does not handle labels that touch the breast, film
frames or tiny findings. Both use one thread and alternate (A B A B) on one full-size phantom.
Usage: python -m benchmarks.intake.chain [--rows 4096] [--columns 3328] [--size 1536]
       [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage import filters, measure, transform

from benchmarks.lib.harness import record
from mamfed_client.imaging.breast_mask import breast_view
from mamfed_client.imaging.geometry import choose_transform
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.preprocess import (
    intensity_range,
    prepare,
    rescale_intensity,
    transform_masks,
)
from mamfed_common.transforms.sample import FULL_SCALE


class Lap(NamedTuple):
    """Duration of a stage in milliseconds: wall clock and processor time."""

    wall_ms: float
    cpu_ms: float


Laps = dict[str, Lap]
"""Stages in order."""


@contextmanager
def stage(laps: Laps, name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    laps[name] = Lap((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)


def drawn(rows: int, columns: int, seed: int = 0) -> tuple[Mammogram, np.ndarray]:
    """Draw a breast, half an ellipse at the right edge, and a mask of its one round finding."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:rows, :columns]
    depth = 1 - ((y / rows - 0.5) / 0.42) ** 2 - ((columns - x) / columns / 0.7) ** 2
    finding = (y - rows / 2) ** 2 + (x - columns * 0.7) ** 2 < (rows / 25) ** 2
    tissue = 0.4 + 0.1 * np.cos(x / 90) * np.cos(y / 110) + 0.3 * finding
    noise = rng.normal(0, 0.02, (rows, columns))
    levels = np.where(depth > 0, tissue + noise, 0.02 + noise / 10).clip(0, 1)
    return Mammogram(np.rint(levels * FULL_SCALE).astype(np.uint16)), finding


def ours(mammogram: Mammogram, mask: np.ndarray, size: int) -> Laps:
    """Run the stages of ``prepare`` one by one, and then ``prepare`` itself."""
    grey, valid, laps = mammogram.grey, mammogram.valid, Laps()
    with stage(laps, "view + breast"):
        breast = breast_view(grey, valid)
    with stage(laps, "box"):
        way = choose_transform(breast, mammogram.facts.laterality, size, grey.shape, mask)
    with stage(laps, "crop + resize"):
        image = way.apply(grey)
    with stage(laps, "field"):
        breast_mask, _ = transform_masks(way, breast, valid, None)
    with stage(laps, "normalise"):
        image = rescale_intensity(image, *intensity_range(grey, valid, breast))
        image *= breast_mask
    with stage(laps, "mask"):
        breast_mask |= way.apply_mask(mask)
    with stage(laps, "all, no mask"):
        prepare(mammogram, None, size)
    with stage(laps, "all, with mask"):
        prepare(mammogram, mask, size)
    return laps


def plain(mammogram: Mammogram, mask: np.ndarray, size: int) -> Laps:
    """Do the same as a scikit-image script, at full size and in floating point."""
    grey, laps = mammogram.grey, Laps()
    with stage(laps, "view + breast"):
        labels = measure.label(grey > filters.threshold_otsu(grey))
    with stage(laps, "box"):
        region = max(measure.regionprops(labels), key=lambda region: region.area)
        top, left, bottom, right = region.bbox
        crop = np.s_[top:bottom, left:right]
    with stage(laps, "crop + resize"):
        scale = size / max(bottom - top, right - left)
        shape = (round((bottom - top) * scale), round((right - left) * scale))
        image = transform.resize(grey[crop] / FULL_SCALE, shape, anti_aliasing=True)
    with stage(laps, "field"):
        breast = labels[crop] == region.label
        breast_mask = transform.resize(breast, shape, order=0, anti_aliasing=False)
    with stage(laps, "normalise"):
        black, white = np.percentile(grey[crop][breast] / FULL_SCALE, (0.5, 99.8))
        image = np.where(breast_mask, ((image - black) / (white - black)).clip(0, 1), 0)
    with stage(laps, "mask"):
        share = transform.resize(mask[crop].astype(float), shape, anti_aliasing=True)
        np.greater_equal(share, 0.5)
    without_mask = [lap for name, lap in laps.items() if name != "mask"]
    laps["all, no mask"] = total(without_mask)
    laps["all, with mask"] = total([*without_mask, laps["mask"]])
    return laps


def total(laps: list[Lap]) -> Lap:
    return Lap(sum(lap.wall_ms for lap in laps), sum(lap.cpu_ms for lap in laps))


def in_turns(chains: dict[str, Callable[[], Laps]], repeats: int) -> dict[str, list[Laps]]:
    """Run the chains alternately, once to warm up and then ``repeats`` times."""
    runs: dict[str, list[Laps]] = {name: [] for name in chains}
    for turn in range(-1, repeats):
        for name, chain in chains.items():
            laps = chain()
            if turn >= 0:
                runs[name].append(laps)
    return runs


def medians(runs: list[Laps]) -> Laps:
    """Return the medians of each stage."""
    return {
        name: Lap(*(statistics.median(values) for values in zip(*laps, strict=True)))
        for name, laps in ((name, [run[name] for run in runs]) for name in runs[0])
    }


def table(results: dict[str, Laps], title: str) -> Table:
    """Lay the chains side by side; the last column says how often the first goes into the last.

    It compares the processor's time, which does not count what else the machine does.
    """
    grid = Table("stage", title=title)
    for name in results:
        for clock in ("wall ms", "CPU ms"):
            grid.add_column(f"{name}\n{clock}", justify="right")
    grid.add_column("CPU\nratio", justify="right")
    first, last = (list(results.values())[i] for i in (0, -1))
    for name, lap in first.items():
        cells = [f"{value:.1f}" for laps in results.values() for value in laps[name]]
        grid.add_row(name, *cells, f"{last[name].cpu_ms / lap.cpu_ms:.1f} x")
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=3328)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    mammogram, mask = drawn(arguments.rows, arguments.columns)
    chains = {
        "ours": lambda: ours(mammogram, mask, arguments.size),
        "scikit-image": lambda: plain(mammogram, mask, arguments.size),
    }
    runs = in_turns(chains, arguments.repeats)
    image = f"{arguments.rows} x {arguments.columns}"
    for whole in ("all, no mask", "all, with mask"):
        seconds = [[laps[whole].wall_ms / 1e3 for laps in runs[name]] for name in chains]
        name = f"decoded image to sample, {whole.removeprefix('all, ')}, {image}, one thread"
        record(name, *seconds, peer_name="scikit-image", unit="s")
    title = f"{image} uint16 -> {arguments.size}, medians of {arguments.repeats}, one thread"
    Console().print(table({name: medians(laps) for name, laps in runs.items()}, title))


if __name__ == "__main__":
    main()
