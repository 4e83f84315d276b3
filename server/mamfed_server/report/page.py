"""The page: one HTML file that needs nothing else, and its figures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamfed_common.files import check_folder_of, private_directory, write_atomic
from mamfed_server.report.data import FIGURE2, Interval, ReportData, read_run
from mamfed_server.report.figures import BarGroup, chosen_round, draw_curves, draw_dice_bars
from mamfed_server.report.participation import Mark, participation
from mamfed_server.report.results import (
    SMALL,
    ArmResult,
    Sites,
    across_rows,
    common_sites,
    comparable,
    counted,
    dice_text,
    measures,
    read_arms,
    read_sites,
    rows_of,
    verdict,
)
from mamfed_server.runs import RoundRecord

COLUMNS = 9
"""Of figure 2, side by side."""
HAPPENED = {
    "resumed": "started again, and went on",
    "stopped": "stopped by the coordinator",
    "checkpoint damaged": "found a checkpoint damaged, and went back",
    "asked again": "asked a site again that had refused to describe itself",
}
"""Events that nothing else on the page tells of."""
REPORT, CURVES, DICE = "report.html", "curves.png", "dice.png"


@dataclass(frozen=True)
class Status:
    """How the run ended.

    Attributes:
        level: ``ok``, ``warning`` or ``failed``.
        headline: One sentence.
        points: What was lost or left out, with counts.
    """

    level: str
    headline: str
    points: list[str]


def report_run(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder, as it is now; return where.

    The same folder gives the same page.

    Args:
        folder: The run folder.
        out: The page; None: ``report.html`` in the folder, its figures beside it.

    Raises:
        DataError: The run folder is damaged.
        OutputError: The page cannot be written there.
        PlanError: Its plan is damaged or missing.
    """
    report = read_run(folder)
    if out is None:
        return write_report(folder, report)
    check_folder_of(out)
    write_atomic(out, _page_and_figures(report)[0])
    return out


def write_report(folder: Path, report: ReportData) -> Path:
    """Write ``report.html`` and its figures, readable by their owner only; return its path.

    A simulation's page shows images and names them: it belongs where the images may be.
    """
    page, figures = _page_and_figures(report)
    private_directory(folder)
    for name, png in figures.items():
        write_atomic(folder / name, png)
    write_atomic(folder / REPORT, page)
    return folder / REPORT


def _page_and_figures(report: ReportData) -> tuple[str, dict[str, bytes]]:
    arms, sites = read_arms(report.summary), read_sites(report.summary)
    figures = _draw_figures(report, arms, sites)
    return _render(report, arms, sites, figures), figures


def status_of(report: ReportData, arms: Sequence[ArmResult], sites: Sites) -> Status:
    """Say how the run ended; whatever is missing from it is named."""
    summary = report.summary
    lost = _lost_updates(report.rounds)
    silent = _sites_without_result(arms, sites) if report.plan.finetuning.rounds else []
    points = [_updates_point(report.rounds), *lost, *silent, _rows_point(sites)]
    if summary["status"] != "finished":
        reason = summary["reason"] or "no reason was given"
        return Status("failed", f"The run {summary['status']}: {reason}.", points)
    if lost or silent or not summary["complete"]:
        return Status("warning", "The run finished, but something is missing from it.", points)
    if summary["warnings"]:
        warnings = counted(len(summary["warnings"]), "warning")
        return Status("warning", f"The run finished, with {warnings}.", points)
    return Status("ok", "The run finished and is complete.", points)


def _draw_figures(report: ReportData, arms: Sequence[ArmResult], sites: Sites) -> dict[str, bytes]:
    figures = {}
    if report.rounds:
        figures[CURVES] = draw_curves(report.rounds, report.other_rounds)
    if any(arm.rated for arm in arms):
        figures[DICE] = draw_dice_bars(_bar_groups(arms, sites))
    if report.figure2:
        figures[FIGURE2] = report.figure2
    return figures


def _bar_groups(arms: Sequence[ArmResult], sites: Sites) -> list[BarGroup]:
    """Return a group a site, and the mean over those sites that every arm was measured at."""
    dice = _dice_by_arm(arms)
    groups = [
        BarGroup(site, _images_note(arms, site), {arm: v.get(site) for arm, v in dice.items()})
        for site in sorted({*sites, *(s for arm in arms for s in arm.scores)})
    ]
    common = common_sites(arms)
    means = {
        arm: sum(values[site] for site in common) / len(common) if common else None
        for arm, values in dice.items()
    }
    name = "mean" if comparable(arms) else "mean, all arms"
    return [*groups, BarGroup(name, counted(len(common), "site"), means)]


def _dice_by_arm(arms: Sequence[ArmResult]) -> dict[str, dict[str, float]]:
    """Return mean Dice by arm and site; sites without one are left out."""
    return {
        arm.name: {site: s.dice for site, s in arm.scores.items() if s.dice is not None}
        for arm in arms
    }


def _images_note(arms: Sequence[ArmResult], site: str) -> str:
    counts = {arm.scores[site].images or 0 for arm in arms if site in arm.scores}
    return counted(max(counts, default=0), "image")


def _render(
    report: ReportData, arms: Sequence[ArmResult], sites: Sites, figures: Mapping[str, bytes]
) -> str:
    environment = Environment(
        loader=PackageLoader("mamfed_server.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted,
        counts=_counts,
        dice=dice_text,
        duration=_duration,
        mean_loss=_mean_loss,
        megabytes=_megabytes,
        interval=_interval,
    )
    rated = sorted({site for arm in arms for site in arm.rated})
    return environment.get_template("report.html.j2").render(
        report=report,
        summary=report.summary,
        arms=arms,
        sites=sites,
        verdict=verdict(arms),
        caveats=_caveats(arms, rated),
        not_trained=[(arm, reasons) for arm in arms if (reasons := arm.not_trained)],
        status=status_of(report, arms, sites),
        tables=[
            (measure, rows_of(measure, arms, sites))
            for measure in measures(report.plan, report.threshold)
        ],
        tested=rated,
        across=across_rows(arms, rated),
        chosen=chosen_round(report.rounds),
        notes=report.notes,
        participation=participation(report.rounds),
        marks=[mark for mark in Mark if mark.sign],
        happened={HAPPENED[k]: n for k, n in report.events.items() if k in HAPPENED},
        site_dice=_dice_by_arm(arms).get("federated", {}),
        columns=min(len(report.notes.cases), COLUMNS),
        small=SMALL,
        figures={name: base64.b64encode(png).decode() for name, png in figures.items()},
    )


def _caveats(arms: Sequence[ArmResult], rated: Sequence[str]) -> list[str]:
    few = [
        site
        for site in rated
        if any(site in arm.rated and (arm.scores[site].images or 0) < SMALL for arm in arms)
    ]
    sentences = ["One run with one seed: small differences may be chance."] if len(arms) > 1 else []
    if few:
        sentences.append(f"Fewer than {SMALL} images stand behind the Dice of {', '.join(few)}.")
    return sentences


def _updates_point(rounds: Sequence[RoundRecord]) -> str:
    asked = sum(len(r.expected) for r in rounds)
    accepted = sum(len(r.accepted) for r in rounds)
    return f"{accepted} of {counted(asked, 'update')} accepted ({_rounds(rounds)})."


def _lost_updates(rounds: Sequence[RoundRecord]) -> list[str]:
    """Name each site whose updates are missing: in how many rounds, and why."""
    points = []
    for site in sorted({site for r in rounds for site in r.expected}):
        asked = [r for r in rounds if site in r.expected]
        lost = [r for r in asked if site not in r.accepted]
        reasons = dict.fromkeys(r.refused.get(site, "no reason given") for r in lost)
        if lost:
            points.append(
                f"{site}: update missing in {len(lost)} of {_rounds(asked)}: {'; '.join(reasons)}."
            )
    return points


def _sites_without_result(arms: Sequence[ArmResult], sites: Sites) -> list[str]:
    """Name sites that hold test images but whose result is not in the federated arm."""
    measured = {site for arm in arms if arm.name == "federated" for site in arm.scores}
    return [
        f"{site}: holds test images, but no result came back."
        for site, description in sites.items()
        if site not in measured
        and any(
            description.images.get(purpose, {}).get("test", 0)
            for purpose in ("malignant", "without_malignancy")
        )
    ]


def _rows_point(sites: Sites) -> str:
    rows = sum(site.rows for site in sites.values())
    rejected = sum(sum(site.rejected.values()) for site in sites.values())
    left_out = sum(sum(site.left_out.values()) for site in sites.values())
    return (
        f"{counted(rows, 'row')} in the tables of {counted(len(sites), 'site')}: "
        f"{rejected:,} could not be read, {left_out:,} left out by a rule."
    )


def _rounds(rounds: Sequence[RoundRecord]) -> str:
    return counted(len(rounds), "round")


def _counts(counts: Mapping[str, int]) -> str:
    """Write counts by name as ``bad label: 2; missing mask: 1``, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{name}: {count:,}" for name, count in ordered if count) or "none"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _mean_loss(record: RoundRecord) -> float:
    return sum(c.share * (math.nan if c.loss is None else c.loss) for c in record.accepted.values())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _interval(interval: Interval) -> str:
    """Write an interval with the patients behind it."""
    patients = counted(interval.patients, "patient")
    if interval.low is None or interval.high is None:
        return f"no interval ({patients})"
    return f"{interval.low:.2f} to {interval.high:.2f} ({patients})"
