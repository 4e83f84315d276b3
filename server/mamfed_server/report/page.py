"""Write the report, one self-contained HTML file, and its figures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamfed_common.metrics.row_account import account_of, reason_lines
from mamfed_common.metrics.small_numbers import (
    FEW_IMAGES,
    FEW_PATIENTS,
    MARK,
    MARK_MEANS,
    cautions,
    few_patients,
)
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.runtime.output_checks import check_file, is_page
from mamfed_common.runtime.wording import counted, span
from mamfed_server.aggregation.pooled_scores import pool
from mamfed_server.report.data import FIGURE2, Interval, ReportData, RunNotes, read_run
from mamfed_server.report.figures import BarGroup, draw_curves, draw_dice_bars
from mamfed_server.report.participation import RoundMark, participation, privacy_sentences
from mamfed_server.report.result_tables import Measure, Row, across_rows, measures, rows_of
from mamfed_server.report.results import (
    ArmResult,
    Sites,
    common_sites,
    comparable,
    dice_text,
    read_arms,
    read_sites,
    verdict,
)
from mamfed_server.report.site_gains import gain_rows, gain_sentences, gains_of
from mamfed_server.report.status import status_of
from mamfed_server.run.round_choice import RoundChoice, chosen_round
from mamfed_server.run_folder.attendance import Attendance, attendance, due
from mamfed_server.run_folder.round_record import RoundRecord

COLUMNS = 9
"""Maximum columns of figure 2 that are shown side by side."""
HAPPENED = {
    "resumed": "was restarted and resumed the run",
    "stopped": "was stopped by the coordinator",
    "checkpoint damaged": "found a damaged checkpoint and used the one before it",
    "asked again": "repeated a request to a site that had lost it",
}
"""Predicates of "the server" for events that appear nowhere else on the page."""
REPORT, CURVES, DICE = "report.html", "curves.png", "dice.png"


def report_run(folder: Path, out: Path | None = None) -> Path:
    """Write the report on the current state of a run folder; return its path.

    The same folder gives the same page.

    Args:
        folder: The run folder.
        out: The page; None: ``report.html`` in the run folder, with its figures next to it.

    Raises:
        DataError: The run folder is damaged.
        OutputError: The page cannot be written there.
        PlanError: Its plan is damaged or missing.
    """
    if out is not None:
        check_file(out, is_page, "mamfed page")
    report = read_run(folder)
    if out is None:
        return write_report(folder, report)
    write_atomic(out, _page_and_figures(report)[0])
    return out


def lines_of(folder: Path) -> list[str]:
    """Return lines for a terminal: how a run ended, and the rows not used, by reason.

    Raises:
        DataError: The run folder is damaged.
        PlanError: Its plan is damaged or missing.
    """
    report = read_run(folder)
    sites = read_sites(report.summary)
    status = status_of(report, read_arms(report.summary), sites)
    return [status.headline, *status.points, *reason_lines(sites, report.plan)]


def write_report(folder: Path, report: ReportData) -> Path:
    """Write ``report.html`` and its figures, readable by their owner only; return its path.

    A simulation's report shows images and their names: keep it where the images may be.
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
    """Return one group per site, and the mean over the sites measured in every arm."""
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
    """Return mean Dice by arm and site, without sites that have none."""
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
    counted_sites = attendance(report.rounds, report.summary.get("stages"), sites)
    rated = sorted({site for arm in arms for site in arm.rated})
    chosen = chosen_round(report.rounds, ended_well=report.ended_well)
    promises = gains_of(report.notes.promises, arms)
    return (
        _environment(counted_sites)
        .get_template("report.html.j2")
        .render(
            report=report,
            summary=report.summary,
            arms=arms,
            sites=sites,
            accounts={name: account_of(site, report.plan) for name, site in sites.items()},
            reasons=reason_lines(sites, report.plan),
            verdict=[*verdict(arms), *gain_sentences(promises, ["shared"])],
            caveats=_caveats(arms),
            not_trained=[(arm, reasons) for arm in arms if (reasons := arm.not_trained)],
            status=status_of(report, arms, sites),
            tables=_tables(report, arms, sites),
            promises=gain_rows(promises, arms),
            promised=gain_sentences(promises),
            tested=rated,
            across=across_rows(arms, rated),
            chosen=chosen,
            pooled=chosen and pool(chosen.validation),
            chosen_by=RoundChoice(report.rounds).why(),
            notes=report.notes,
            participation=participation(report.rounds, counted_sites),
            privacy=privacy_sentences(report.rounds),
            absent=report.absent,
            started=report.rounds[0].started_at if report.rounds else "",
            marks=[mark for mark in RoundMark if mark.sign],
            happened={HAPPENED[k]: n for k, n in report.events.items() if k in HAPPENED},
            site_dice=_dice_by_arm(arms).get("federated", {}),
            columns=min(len(report.notes.cases), COLUMNS),
            small=FEW_IMAGES,
            few_patients=FEW_PATIENTS,
            thin=MARK_MEANS if _has_thin(report.notes) else "",
            figures={name: base64.b64encode(png).decode() for name, png in figures.items()},
        )
    )


def _environment(counted_sites: Sequence[Attendance]) -> Environment:
    """Return Jinja's environment with the filters of the page."""
    environment = Environment(
        loader=PackageLoader("mamfed_server.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        due=lambda record: due(record, counted_sites),
        missing=lambda record: record.refused | record.absent,
        counted=counted,
        counts=_counts,
        dice=dice_text,
        duration=span,
        mean_loss=_mean_loss,
        megabytes=_megabytes,
        interval=_interval,
    )
    return environment


def _tables(
    report: ReportData, arms: Sequence[ArmResult], sites: Sites
) -> list[tuple[Measure, list[Row]]]:
    """Return the tables of results; none if the run ended before its test."""
    if not report.ended_well and not any(arm.scores for arm in arms):
        return []
    return [(m, rows_of(m, arms, sites)) for m in measures(report.plan, report.threshold, arms)]


def _caveats(arms: Sequence[ArmResult]) -> list[str]:
    """Return warnings about the reliability of the figures."""
    sentences = ["One run with one seed: small differences may be chance."] if len(arms) > 1 else []
    return sentences + cautions(_images_behind(arms))


def _images_behind(arms: Sequence[ArmResult]) -> dict[str, int]:
    """Return the fewest images behind a site's Dice in any arm."""
    rated = {site for arm in arms for site in arm.rated}
    return {
        site: min(arm.scores[site].images or 0 for arm in arms if site in arm.rated)
        for site in sorted(rated)
    }


def _has_thin(notes: RunNotes) -> bool:
    """Return whether an interval on the page is flagged as based on few patients."""
    behind = [i.patients for i in notes.intervals.values() if i.low is not None]
    return any(map(few_patients, [*behind, *(p.patients for p in notes.promises if p.minus_local)]))


def _counts(counts: Mapping[str, int]) -> str:
    """Return counts by name as ``bad label: 2; missing mask: 1``, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{name}: {count:,}" for name, count in ordered if count) or "none"


def _mean_loss(record: RoundRecord) -> float:
    return sum(c.share * (math.nan if c.loss is None else c.loss) for c in record.accepted.values())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _interval(interval: Interval) -> str:
    """Return an interval in words, with the number of patients."""
    patients = counted(interval.patients, "patient")
    if interval.low is None or interval.high is None:
        return f"no interval ({patients})"
    mark = MARK * few_patients(interval.patients)
    return f"{interval.low:.2f} to {interval.high:.2f}{mark} ({patients})"


def verdicts_of(folder: Path) -> list[str]:
    """Return the sentences at the top of a run's report, for a terminal.

    Raises:
        DataError: The run folder is damaged.
        PlanError: Its plan is damaged or missing.
    """
    report = read_run(folder)
    arms = read_arms(report.summary)
    promises = gains_of(report.notes.promises, arms)
    return [*verdict(arms), *gain_sentences(promises), *_caveats(arms)]
