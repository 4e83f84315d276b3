"""How long each site is waited for, learned from how long it took before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mamfed_common.plan import Stage, StagePlan, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_server.run_folder.round_record import RoundRecord

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


def personal_deadlines(
    plan: TrainingPlan,
    records: Sequence[RoundRecord],
    descriptions: Mapping[str, SiteDescription],
    sites: Iterable[str],
) -> dict[str, float]:
    """Return each site's deadline for adapting the final weights and scoring what comes of it.

    A round of stage 2 tells how long a site takes for its steps; the adapting has its own number.
    """
    found, stage = {}, plan.finetuning
    for site in sites:
        trained = [r.durations[site] for r in _of_stage_2(records) if site in r.durations]
        scored = [s[site] for r in records if site in (s := r.validation_durations)]
        if not trained:
            found[site] = stage.deadline_seconds
            continue
        used = descriptions[site].images_used(plan, Stage.FINETUNING)
        times = max(1.0, plan.personal.steps / max(1, plan.steps(Stage.FINETUNING, used)))
        slowest = max(trained[-ROUNDS_REMEMBERED:]) * times
        scoring = max(scored[-ROUNDS_REMEMBERED:], default=0.0)
        found[site] = deadline_seconds(stage, [slowest + 2 * scoring])
    return found


def _of_stage_2(records: Sequence[RoundRecord]) -> list[RoundRecord]:
    return [record for record in records if record.stage is Stage.FINETUNING]


def _deadlines(
    plan: StagePlan, past: Sequence[dict[str, float]], sites: Iterable[str]
) -> dict[str, float]:
    return {
        site: deadline_seconds(plan, [seconds[site] for seconds in past if site in seconds])
        for site in sites
    }
