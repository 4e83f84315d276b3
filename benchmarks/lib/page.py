"""Write the measured tables of ``docs/benchmarks.md`` from ``benchmarks/results.json``.

Usage: python -m benchmarks.lib.page

Replaces the part of the page between the two markers; the rest is written by hand. The table shows
the newest result of each name and peer.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from datetime import date
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib.harness import ROOT, read_results

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
PACKAGES = ("torch", "flwr", "numpy", "opencv-python-headless", "pydicom", "monai")


class Aim(NamedTuple):
    """A target for results.

    Attributes:
        name: The result's name, as a pattern of ``fnmatch``.
        peer: Its peer's name, likewise.
        ratio: The largest ratio, ours / peer, that reaches it.
    """

    name: str
    peer: str
    ratio: float


STEP, PEAK, INTAKE = "training step, ", "peak memory of a training step, ", "pydicom + scikit-image"
AIMS = (
    Aim("* beside endless loops, *", "the same, quiet", 2.5),
    Aim("* beside endless loops, *", "*", 1),
    Aim(STEP + "float32, *", "smp.Unet*, memory kept", 1 / 6),
    Aim(STEP + "float32, *", "MONAI BasicUNet, memory kept", 1 / 6),
    Aim(STEP + "float32, *", "nnU-Net *, memory kept", 1 / 12),
    Aim(STEP + "float32, *", "smp.Unet*", 1 / 5),
    Aim(STEP + "float32, *", "MONAI BasicUNet", 1 / 8),
    Aim(STEP + "float32, *", "nnU-Net *", 1 / 15),
    Aim(STEP + "float32, *", "operations / matrix product", 3),  # the larger of the two limits
    Aim(STEP + "bfloat16, *", "mamfed, float32", 0.6),
    Aim(STEP + "activations recomputed, *", "mamfed, float32", 1.5),
    Aim("inference, *", "smp.Unet*", 1 / 6),
    Aim("inference, *", "MONAI BasicUNet", 1 / 12),
    Aim("inference, *", "nnU-Net *", 1 / 18),
    Aim(PEAK + "float32, *", "MONAI BasicUNet", 1 / 4),
    Aim(PEAK + "activations recomputed, *", "MONAI BasicUNet", 1 / 10),
    Aim("corruption + augmentation, *", "Models Genesis", 1 / 15),
    Aim("an image moved and altered, *", "150 images/s a core", 1),
    Aim("waiting for a batch, *", "the step it feeds", 0.1),
    Aim("making a batch, *", "the step it feeds", 0.1),
    Aim("intake, uncompressed 3328 x 2560", INTAKE, 1 / 20),
    Aim("intake, RLE 3328 x 2560", INTAKE, 1 / 5),
    Aim("intake, JPEG 2000 3328 x 2560", INTAKE, 1 / 2.5),
    Aim("aggregation, * float32", "Flower's *", 1 / 2),
    Aim("aggregation, *, beside copy bandwidth", "bytes / copy bandwidth", 2),
    Aim("aggregation, *, peak memory", "Flower's *, replies included", 1 / 10),
    Aim("a round of training*", "stock Flower", 1 / 3),
    Aim("bytes of a round, *", "float32", 1 / 2),
    Aim("mamfed-* --help", "python -c *", 1),
)


def aim_of(result: dict[str, Any]) -> Aim | None:
    """Return the first target that matches a result, or None."""
    return next(
        (
            aim
            for aim in AIMS
            if fnmatchcase(result["name"], aim.name) and fnmatchcase(result["peer_name"], aim.peer)
        ),
        None,
    )


def newest(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one result for each name and peer, in the order of their first appearance."""
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        latest[result["name"], result["peer_name"]] = result
    return list(latest.values())


def row(result: dict[str, Any]) -> str:
    """Format a result as a table row: medians, ratio, spread of the ratio, target."""
    ratios = [ours / peer for ours, peer in result["runs"]]
    spread = f"{min(ratios):.3g}-{max(ratios):.3g}" if len(ratios) > 1 else "one run"
    aim = aim_of(result)
    target = "" if aim is None else f"{aim.ratio:.3g}"
    met = "" if aim is None else ("yes" if result["ratio"] <= aim.ratio else "**no**")
    cells = (
        result["name"],
        f"{statistics.median(ours for ours, _ in result['runs']):.3g} {result['unit']}",
        result["peer_name"],
        f"{result['peer']:.3g} {result['unit']}",
        f"**{result['ratio']:.3g}**",
        spread,
        str(len(ratios)),
        target,
        met,
    )
    return "| " + " | ".join(cells) + " |"


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of one table with all results."""
    yield "| what | ours | peer | peer's | ours / peer | spread | runs | target | met |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield from (row(result) for result in newest(results))


def machine() -> str:
    """Describe this machine and the versions of the packages."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"Measured up to {date.today()} on {os.cpu_count()} cores ({name}), {memory:.0f} GiB, "
        f"no GPU, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"{versions}. Values are medians; the spread is the smallest and the largest ratio of "
        f"single runs."
    )


def replaced(page: str, tables: str) -> str:
    """Return the page with the part between its markers replaced.

    Raises:
        ValueError: A marker is missing.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    tables = "\n".join((machine(), "", *table(read_results())))
    PAGE.write_text(replaced(PAGE.read_text(), tables))
    print(PAGE)


if __name__ == "__main__":
    main()
