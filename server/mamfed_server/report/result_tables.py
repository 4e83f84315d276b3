"""The tables of results: one per measure, with a row per site and a column per arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mamfed_common.metrics.site_score import FOUND_SHARE, SiteScore
from mamfed_common.metrics.small_numbers import FEW_IMAGES
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.wording import counted
from mamfed_server.aggregation.pooled_scores import mean_dice_at_half_of, mean_dice_of
from mamfed_server.report.results import ArmResult, Sites, dice_text


class Cell(NamedTuple):
    """A figure or n/a, and a note on it."""

    text: str
    note: str = ""


class Measure(NamedTuple):
    """One table of results.

    Attributes:
        title: What is measured.
        caption: How to read the table.
        purpose: The purpose of the held-out images that are measured.
        count: Returns the number of images behind a site's figure.
        value: Returns the figure of one or more sites; None: there is none.
        total: Name of the row of all sites.
    """

    title: str
    caption: str
    purpose: str
    count: Callable[[SiteScore], int]
    value: Callable[[Sequence[SiteScore]], Cell | None]
    total: str


class Row(NamedTuple):
    """The figures of one site, or of several; ``small`` flags few images behind them."""

    name: str
    cells: list[Cell]
    images: str = ""
    small: bool = False
    total: bool = False


def measures(plan: TrainingPlan, threshold: float, arms: Sequence[ArmResult] = ()) -> list[Measure]:
    """Return the tables of results; one is at threshold 0.5 if an arm uses a different one."""
    has_other_threshold = any(
        score.dice_at_half not in (None, score.dice)
        for arm in arms
        for score in arm.scores.values()
    )
    return [
        Measure(
            title="Dice",
            caption="Overlap of marked and malignant pixels from 0 (none) to 1 (all): the mean "
            "over a site's held-out images with malignancy. The probability from which a pixel is "
            f"marked was chosen on each arm's validation patients (federated: {threshold:g}).",
            purpose="malignant",
            count=lambda score: score.images or 0,
            value=_dice_value,
            total="Mean of sites",
        ),
        *[_at_half()] * has_other_threshold,
        Measure(
            title="Lesions found",
            caption="Malignant regions in the same images. A region is found if at least "
            f"{FOUND_SHARE:.0%} of its pixels are marked.",
            purpose="malignant",
            count=lambda score: score.images or 0,
            value=_lesions_value,
            total="All sites",
        ),
        Measure(
            title="False-positive pixels",
            caption="Mean number of marked pixels in a held-out image without malignancy, out of "
            f"the {plan.image_size**2:,} pixels of the plan's square grid.",
            purpose="without_malignancy",
            count=lambda score: score.images_without_malignancy or 0,
            value=_false_positive_value,
            total="Mean of sites",
        ),
        Measure(
            title="Explanations that look like tissue",
            caption="Found lesions that, once redrawn as healthy tissue, are as bright as the "
            "tissue around them: their mean lies between the 5th and the 95th percentile of a ring "
            "around the lesion. The second figure is the mean difference between redrawn pixels "
            "and ring, on a scale from 0 (black) to 1 (white). n/a for a run without stage 1, "
            "which trains the redrawing.",
            purpose="malignant",
            count=lambda score: score.images or 0,
            value=_tissue_value,
            total="All sites",
        ),
    ]


def _at_half() -> Measure:
    return Measure(
        title="Dice at 0.5",
        caption="The same with the fixed threshold 0.5, which needs no validation patients.",
        purpose="malignant",
        count=lambda score: score.images or 0,
        value=_half_value,
        total="Mean of sites",
    )


def rows_of(measure: Measure, arms: Sequence[ArmResult], sites: Sites) -> list[Row]:
    """Return the rows of a table: each site, all sites, and the sites measured in every arm."""
    names = sorted({*sites, *(site for arm in arms for site in arm.scores)})
    rows = []
    for name in names:
        scores = [[arm.scores[name]] if name in arm.scores else [] for arm in arms]
        notes = [_why_missing(measure, arm, name, sites) for arm in arms]
        rows.append(_row(measure, name, scores, notes))
    return rows + _total_rows(measure, arms)


def across_rows(arms: Sequence[ArmResult], sites: Sequence[str]) -> list[Row]:
    """Return the cross table: each local model and the federated one on every site's images."""
    local = {f"{site} alone": v for arm in arms for site, v in arm.across.items()}
    joint = {f"all, {arm.label}": arm.scores for arm in arms if not arm.across}
    return [
        Row(name, [_across_cell(scores.get(site)) for site in sites])
        for name, scores in ({**local, **joint} if local else {}).items()
    ]


def _row(
    measure: Measure, name: str, by_arm: Sequence[Sequence[SiteScore]], notes: Sequence[str]
) -> Row:
    """Build a row from the scores of one or more sites, arm by arm."""
    counts = [sum(measure.count(s) for s in scores) for scores in by_arm]
    behind = {count for count in counts if count}
    cells = []
    for scores, count, note in zip(by_arm, counts, notes, strict=True):
        cell = measure.value(scores) or Cell("n/a", note)
        if len(behind) > 1 and count:
            cell = cell._replace(note=", ".join(filter(None, [cell.note, counted(count, "image")])))
        cells.append(cell)
    images = "varies" if len(behind) > 1 else str(max(counts, default=0))
    return Row(name, cells, images, bool(behind) and min(behind) < FEW_IMAGES)


def _total_rows(measure: Measure, arms: Sequence[ArmResult]) -> list[Row]:
    """Build the row of all sites and, if arms lack some, the row of the sites in every arm."""
    totals = {measure.total: [list(arm.scores.values()) for arm in arms]}
    known = [{site for site, s in arm.scores.items() if measure.value([s])} for arm in arms]
    common = set.intersection(*known) if known else set()
    if common and any(sites != common for sites in known):
        label = f"{measure.total}, the {len(common)} in every arm"
        totals[label] = [[arm.scores[site] for site in sorted(common)] for arm in arms]
    return [
        _row(measure, label, scores, [""] * len(arms))._replace(total=True)
        for label, scores in totals.items()
    ]


def _why_missing(measure: Measure, arm: ArmResult, site: str, sites: Sites) -> str:
    if site in arm.not_trained:
        return "not trained"
    if site in arm.scores and measure.count(arm.scores[site]):
        return ""
    counts = sites[site].images.get(measure.purpose, {}) if site in sites else {}
    return "no result" if counts.get("test", 0) and site not in arm.scores else "no images"


def _across_cell(score: SiteScore | None) -> Cell:
    return Cell(dice_text(score.dice if score else None), f"n {score.images}" if score else "")


def _dice_value(scores: Sequence[SiteScore]) -> Cell | None:
    mean = mean_dice_of({str(index): score for index, score in enumerate(scores)})
    return None if mean is None else Cell(dice_text(mean))


def _half_value(scores: Sequence[SiteScore]) -> Cell | None:
    mean = mean_dice_at_half_of({str(index): score for index, score in enumerate(scores)})
    return None if mean is None else Cell(dice_text(mean))


def _lesions_value(scores: Sequence[SiteScore]) -> Cell | None:
    lesions = sum(score.lesions or 0 for score in scores)
    found = sum(score.lesions_found or 0 for score in scores)
    return Cell(f"{found} of {lesions}", f"{found / lesions:.0%}") if lesions else None


def _tissue_value(scores: Sequence[SiteScore]) -> Cell | None:
    redrawn = sum(score.lesions_redrawn or 0 for score in scores)
    as_tissue = sum(score.redrawn_as_tissue or 0 for score in scores)
    if not redrawn or any(s.lesions_redrawn and s.redrawn_minus_ring is None for s in scores):
        return Cell(f"{as_tissue} of {redrawn}") if redrawn else None
    gap = sum((s.redrawn_minus_ring or 0) * (s.lesions_redrawn or 0) for s in scores) / redrawn
    return Cell(f"{as_tissue} of {redrawn}", f"{gap:+.3f}")


def _false_positive_value(scores: Sequence[SiteScore]) -> Cell | None:
    values = [s.false_positive_pixels for s in scores if s.false_positive_pixels is not None]
    if not values:
        return None
    mean = float(np.mean(values))
    return Cell(f"{mean:,.0f}" if mean >= 10 else f"{mean:.1f}")
