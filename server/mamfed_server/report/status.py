"""The headline of a report: how the run ended and what is missing from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mamfed_common.metrics.row_account import account_of, total_of
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.wording import counted
from mamfed_server.report.data import ReportData
from mamfed_server.report.results import ArmResult, Sites
from mamfed_server.run.state import RunState
from mamfed_server.run_folder.attendance import attendance, updates_in_words


@dataclass(frozen=True)
class Status:
    """How the run ended.

    Attributes:
        level: ``ok``, ``warning`` or ``failed``.
        headline: One sentence.
        points: What is missing from the run, with counts.
    """

    level: str
    headline: str
    points: list[str]


def status_of(report: ReportData, arms: Sequence[ArmResult], sites: Sites) -> Status:
    """Return how the run ended, naming everything that is missing from it."""
    summary = report.summary
    lines = attendance(report.rounds, summary.get("stages"), sites)
    lost = [f"{line.words()}." for line in lines if line.missed]
    tested = report.plan.finetuning.rounds and report.ended_well
    silent = _sites_without_result(arms, sites) if tested else []
    points = [
        f"{updates_in_words(lines)} ({counted(len(report.rounds), 'round')}).",
        *lost,
        *silent,
        *([_rows_point(sites, report.plan)] if sites else []),
    ]
    if not report.ended_well:
        reason = f": {summary['reason']}" if summary["reason"] else ""
        level = "failed" if report.state is RunState.FAILED else "warning"
        return Status(level, f"The run {report.state.clause}{reason}.", points)
    if lost or silent or report.absent or not summary["complete"]:
        return Status("warning", "The run finished, but something is missing from it.", points)
    if summary["warnings"]:
        warnings = counted(len(summary["warnings"]), "warning")
        return Status("warning", f"The run finished, with {warnings}.", points)
    return Status("ok", "The run finished and is complete.", points)


def _sites_without_result(arms: Sequence[ArmResult], sites: Sites) -> list[str]:
    """Return a sentence for each site with test images but no result in the federated arm."""
    measured = {site for arm in arms if arm.name == "federated" for site in arm.scores}
    return [
        f"{site}: has test images, but returned no result."
        for site, description in sites.items()
        if site not in measured
        and any(
            description.images.get(purpose, {}).get("test", 0)
            for purpose in ("malignant", "without_malignancy")
        )
    ]


def _rows_point(sites: Sites, plan: TrainingPlan) -> str:
    total = total_of([account_of(site, plan) for site in sites.values()])
    return f"In the tables of {counted(len(sites), 'site')}: {total.in_words()}."
