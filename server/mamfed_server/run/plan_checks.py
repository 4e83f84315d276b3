"""What in a plan contradicts itself, and what in it has no effect.

This is asked of a plan that somebody is about to start, not of one that is read back: checkpoints
and run folders hold plans of runs that were done, and must stay readable
(``docs/decisions/0051-plans-that-contradict-themselves.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mamfed_common.errors import PlanError
from mamfed_common.plan import Stage, TrainingPlan, read_plan
from mamfed_common.runtime.wording import counted, span
from mamfed_server.run.participants import stages_of


def read_new_plan(path: Path) -> TrainingPlan:
    """Read a plan file that is to be started.

    Raises:
        PlanError: It cannot be read, is not a plan, or contradicts itself.
    """
    plan = read_plan(path)
    refuse_contradictions(plan, str(path))
    return plan


def refuse_contradictions(plan: TrainingPlan, origin: str) -> None:
    """Refuse a plan in which one value makes another impossible; ``origin`` as in errors.

    Raises:
        PlanError: It does; every such pair is named in one line.
    """
    if found := list(contradictions(plan)):
        raise PlanError(f"{origin}: {'; '.join(found)}")


def contradictions(plan: TrainingPlan) -> Iterator[str]:
    """Name pairs of values that cannot both be meant, and what to do."""
    for stage in stages_of(plan):
        part = plan.stage(stage)
        if part.deadline_seconds < part.min_deadline_seconds:
            yield (
                f"{stage}.deadline_seconds is {part.deadline_seconds:g}, below "
                f"{stage}.min_deadline_seconds, which is {part.min_deadline_seconds:g}: the "
                "longest wait for a site is shorter than the shortest; lower the latter or raise "
                "the former"
            )
    every, rounds = plan.evaluation.every, plan.finetuning.rounds
    if every > rounds > 0:
        yield (
            f"evaluation.every is {every}, above finetuning.rounds, which is {rounds}: no round "
            "but the last would be scored; give at most the number of rounds"
        )


def without_effect(plan: TrainingPlan) -> Iterator[str]:
    """Say which values another one overrules; each is allowed, and changes nothing."""
    federation = plan.federation
    for stage in stages_of(plan):
        quorum = plan.stage(stage).quorum
        if 1 < quorum < federation.min_sites:
            yield (
                f"{stage}.quorum is {quorum} and federation.min_sites {federation.min_sites}: a "
                f"round needs {federation.min_sites}"
            )
        if quorum > federation.min_sites:
            yield (
                f"federation.min_sites is {federation.min_sites} and {stage}.quorum {quorum}: a "
                f"round of {stage} needs {quorum}"
            )
        if federation.offline_seconds > plan.stage(stage).deadline_seconds:
            yield (
                f"federation.offline_seconds is {span(federation.offline_seconds)}, but {stage} "
                f"waits for no site longer than {span(plan.stage(stage).deadline_seconds)}"
            )
    if federation.max_share * min_updates(plan) < 1:
        yield (
            f"federation.max_share is {federation.max_share:g}, but with "
            f"{counted(min_updates(plan), 'site')} each has at least {1 / min_updates(plan):.2f}"
        )
    if federation.server_optimiser == "none" and federation.server_learning_rate != 1:
        yield "federation.server_learning_rate has no effect without a server_optimiser"
    if plan.personal.steps and not plan.finetuning.rounds:
        yield "personal.steps has no effect without finetuning: there is nothing to adapt"
    if plan.finetuning.benign_only_sites and plan.beside(Stage.FINETUNING) is None:
        yield "finetuning.benign_only_sites has no effect: no part of the loss uses other images"
    if plan.finetuning.rounds and not plan.evaluation.validation_fraction:
        yield (
            "evaluation.validation_fraction is 0: no round can be chosen, so the last one is taken"
        )


def min_updates(plan: TrainingPlan) -> int:
    """Return how many accepted updates every stage has enough of."""
    quorums = (plan.stage(stage).quorum for stage in stages_of(plan))
    return max([plan.federation.min_sites, *quorums])
