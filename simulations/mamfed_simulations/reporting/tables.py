"""Terminal tables of a simulation: its data before training, its results afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mamfed_common.domain import EVALUATED_ON, Part, Purpose
from mamfed_common.metrics.row_account import account_of
from mamfed_common.metrics.site_score import HALF, THRESHOLDS
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription


def data_tables(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> list[Table]:
    """Return two tables: how each site's rows are used, and how many images each use gets."""
    return [_rows_table(descriptions, plan), _uses_table(descriptions, plan)]


def _rows_table(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> Table:
    """Return one line per site; its columns add up to the site's rows."""
    table = Table(title=f"rows at {plan.image_size} x {plan.image_size}, plan {_short(plan)}")
    table.add_column("site")
    for head in ("rows", "trained on", "validation", "test", "not used", "rejected"):
        table.add_column(head, justify="right")
    for site, description in descriptions.items():
        table.add_row(site, *map(str, account_of(description, plan)))
    return table


def _uses_table(descriptions: Mapping[str, SiteDescription], plan: TrainingPlan) -> Table:
    """Return the images by use; a site's benign images may serve both stages."""
    table = Table(title="images by use; validation and test: with malignancy / without")
    table.add_column("site")
    for head in ("stage 1", "stage 2", "validation", "test"):
        table.add_column(head, justify="right")
    for site, description in descriptions.items():
        stages = [
            _kinds(description.images_used(plan, stage)) if plan.stage(stage).rounds else "0"
            for stage in Stage
        ]
        table.add_row(site, *stages, *(_measured(description, plan, p) for p in ("val", "test")))
    return table


def _measured(description: SiteDescription, plan: TrainingPlan, part: Part) -> str:
    if not plan.finetuning.rounds:
        return "0"
    counts = (description.images.get(purpose, {}).get(part, 0) for purpose in EVALUATED_ON)
    return " / ".join(map(str, counts))


def result_table(summary: Mapping[str, Any]) -> Table:
    """Return held-out Dice by arm and site, with the number of images.

    An arm whose chosen threshold differs from 0.5 gets a second line with its results at 0.5.
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
    """Format the images that a site uses in a stage; additional kinds follow a plus sign."""
    return " + ".join(map(str, used.values())) or "0"


def _short(plan: TrainingPlan) -> str:
    return plan.sha256()[:12]
