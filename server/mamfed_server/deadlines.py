"""How long each site is waited for, learned from how long it took before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mamfed_common.plan import Stage, StagePlan, TrainingPlan
from mamfed_server.runs import RoundRecord

ROUNDS_REMEMBERED = 3
TIMES = 3
"""A site is given this many times its slowest remembered round."""


def deadline_seconds(plan: StagePlan, durations: Sequence[float]) -> float:
    """Return a site's deadline within the plan's bounds; the longest where nothing is known."""
    if not durations:
        return plan.deadline_seconds
    learned = round(TIMES * max(durations[-ROUNDS_REMEMBERED:]), 1)
    return min(plan.deadline_seconds, max(plan.min_deadline_seconds, learned))


def training_deadlines(
    plan: TrainingPlan, stage: Stage, records: Sequence[RoundRecord], sites: Iterable[str]
) -> dict[str, float]:
    """Return each site's deadline for a round of a stage."""
    past = [record.durations for record in records if record.stage is stage]
    return _deadlines(plan.stage(stage), past, sites)


def evaluation_deadlines(
    plan: TrainingPlan, records: Sequence[RoundRecord], sites: Iterable[str]
) -> dict[str, float]:
    """Return each site's deadline for scoring weights."""
    past = [record.validation_durations for record in records]
    return _deadlines(plan.finetuning, past, sites)


def _deadlines(
    plan: StagePlan, past: Sequence[dict[str, float]], sites: Iterable[str]
) -> dict[str, float]:
    return {
        site: deadline_seconds(plan, [seconds[site] for seconds in past if site in seconds])
        for site in sites
    }
