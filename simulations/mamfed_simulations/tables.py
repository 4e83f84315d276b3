"""What a simulation prints for people: the data before it, the result after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mamfed_common.metrics import HALF, THRESHOLDS
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.weights import Purpose, SiteDescription


def data_table(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> Table:
    """Lay out what each site has for each stage, and what was left out."""
    table = Table(title=f"data at {plan.image_size} x {plan.image_size}, plan {_short(plan)}")
    table.add_column("site")
    for name in ("rows", "stage 1 train", "stage 2 train", "val", "test", "rejected", "left out"):
        table.add_column(name, justify="right")
    for site, description in descriptions.items():
        malignant = description.images.get("malignant", {})
        table.add_row(
            site,
            str(description.rows),
            *(_kinds(description.images_used(plan, stage)) for stage in Stage),
            str(malignant.get("val", 0)),
            str(malignant.get("test", 0)),
            str(sum(description.rejected.values())),
            str(sum(description.left_out.values())),
        )
    return table


def reasons(descriptions: Mapping[str, SiteDescription]) -> list[str]:
    """Say, a line each, why rows of a site were rejected or left out, with counts."""
    return [
        f"{site}: {count} {word}: {reason}"
        for site, description in descriptions.items()
        for word, counts in (
            ("rejected", description.rejected),
            ("left out of the stages", description.left_out),
        )
        for reason, count in counts.items()
    ]


def result_table(summary: Mapping[str, Any]) -> Table:
    """Lay out held-out Dice by arm and site, with the number of images behind each.

    Where an arm marks pixels from another threshold than 0.5, its results at 0.5 stand below.
    """
    arms = summary["arms"]
    sites = sorted({site for arm in arms.values() for site in arm["sites"]})
    table = Table(title="held-out Dice (images)")
    table.add_column("arm")
    for site in [*sites, "mean over sites"]:
        table.add_column(site, justify="right")
    for name, arm in arms.items():
        cells = [_cell(arm["sites"].get(site)) for site in sites]
        table.add_row(name, *cells, _number(arm["mean_dice"]))
        at_half = {site: _at_half(arm["sites"].get(site)) for site in sites}
        if any(
            half not in ("n/a", cell) for half, cell in zip(at_half.values(), cells, strict=True)
        ):
            table.add_row("  at 0.5", *at_half.values(), _number(arm["mean_dice_at_half"]))
    return table


def _cell(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "n/a"
    return f"{_number(result['dice'])} ({result['images']})"


def _at_half(result: Mapping[str, Any] | None) -> str:
    if result is None or not result["dice_at"]:
        return "n/a"
    return f"{_number(result['dice_at'][THRESHOLDS.index(HALF)])} ({result['images']})"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _kinds(used: Mapping[Purpose, int]) -> str:
    """Lay out the images that a site uses in a stage; those that stand beside after a plus."""
    return " + ".join(map(str, used.values())) or "0"


def _short(plan: TrainingPlan) -> str:
    return plan.sha256()[:12]
