"""How a run ended: one sentence, and what was lost or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mamfed_common.wording import counted
from mamfed_server.report.data import NOT_ENDED, ReportData
from mamfed_server.report.results import ArmResult, Sites
from mamfed_server.runs import RoundRecord


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


def status_of(report: ReportData, arms: Sequence[ArmResult], sites: Sites) -> Status:
    """Say how the run ended; whatever is missing from it is named."""
    summary = report.summary
    lost = _lost_updates(report.rounds)
    tested = report.plan.finetuning.rounds and report.ended_well
    silent = _sites_without_result(arms, sites) if tested else []
    points = [
        _updates_point(report.rounds),
        *lost,
        *silent,
        *([_rows_point(sites)] if sites else []),
    ]
    if not report.ended_well:
        reason = summary["reason"] or "no reason was given"
        level = "warning" if summary["status"] == NOT_ENDED else "failed"
        return Status(level, f"The run {summary['status']}: {reason}.", points)
    if lost or silent or not summary["complete"]:
        return Status("warning", "The run finished, but something is missing from it.", points)
    if summary["warnings"]:
        warnings = counted(len(summary["warnings"]), "warning")
        return Status("warning", f"The run finished, with {warnings}.", points)
    return Status("ok", "The run finished and is complete.", points)


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


def left_out_lines(sites: Sites) -> list[str]:
    """Say, a line each, why rows of a site were rejected or left out, with counts."""
    return [
        f"{name}: {count} {word}: {reason}"
        for name, site in sites.items()
        for word, counts in (("rejected", site.rejected), ("left out by a rule", site.left_out))
        for reason, count in counts.items()
    ]


def _rounds(rounds: Sequence[RoundRecord]) -> str:
    return counted(len(rounds), "round")
