"""Checks of a new plan: contradictions, which are refused, and settings without effect.

Only a plan that is about to be started is checked. Checkpoints and run folders hold plans of
earlier runs, which must stay readable
(``docs/decisions/0051-plans-that-contradict-themselves.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mamfed_common.errors import PlanError
from mamfed_common.model.config import BUILT_IN
from mamfed_common.plan import Stage, TrainingPlan, read_plan
from mamfed_common.runtime.plugins import Group, find_entry
from mamfed_common.runtime.wording import counted, span
from mamfed_server.run.participants import stages_of


def read_new_plan(path: Path) -> TrainingPlan:
    """Read a plan file that is about to be started.

    Raises:
        PlanError: The file cannot be read, is not a plan, or contradicts itself.
    """
    plan = read_plan(path)
    refuse_contradictions(plan, str(path))
    return plan


def refuse_contradictions(plan: TrainingPlan, origin: str) -> None:
    """Refuse a plan in which one value makes another impossible.

    Args:
        plan: The plan.
        origin: The plan's name in the error.

    Raises:
        PlanError: The plan contradicts itself; one line names every contradiction.
    """
    if found := list(contradictions(plan)):
        raise PlanError(f"{origin}: {'; '.join(found)}")


def contradictions(plan: TrainingPlan) -> Iterator[str]:
    """Yield each pair of values that exclude each other, and what to do."""
    for stage in stages_of(plan):
        stage_plan = plan.stage(stage)
        if stage_plan.deadline_seconds < stage_plan.min_deadline_seconds:
            yield (
                f"{stage}.deadline_seconds is {stage_plan.deadline_seconds:g}, below "
                f"{stage}.min_deadline_seconds, which is {stage_plan.min_deadline_seconds:g}: the "
                "maximum wait for a site is shorter than the minimum; raise the former or lower "
                "the latter"
            )
    every, rounds = plan.evaluation.every, plan.finetuning.rounds
    if every > rounds > 0:
        yield (
            f"evaluation.every is {every}, above finetuning.rounds, which is {rounds}: only the "
            "last round would be scored; set it to at most the number of rounds"
        )


def without_effect(plan: TrainingPlan) -> Iterator[str]:
    """Yield each setting that another one overrides; it is allowed but changes nothing."""
    federation = plan.federation
    for stage in stages_of(plan):
        quorum = plan.stage(stage).quorum
        if 1 < quorum < federation.min_sites:
            yield (
                f"{stage}.quorum is {quorum}, but federation.min_sites is {federation.min_sites}: "
                f"a round needs {federation.min_sites}"
            )
        if quorum > federation.min_sites:
            yield (
                f"federation.min_sites is {federation.min_sites}, but {stage}.quorum is {quorum}: "
                f"a round of {stage} needs {quorum}"
            )
        if federation.offline_seconds > plan.stage(stage).deadline_seconds:
            yield (
                f"federation.offline_seconds is {span(federation.offline_seconds)}, but {stage} "
                f"waits for no site longer than {span(plan.stage(stage).deadline_seconds)}"
            )
    if federation.max_share * min_updates(plan) < 1:
        yield (
            f"federation.max_share is {federation.max_share:g}, but with "
            f"{counted(min_updates(plan), 'site')} the largest share is at least "
            f"{1 / min_updates(plan):.2f}"
        )
    if federation.server_optimiser == "none" and federation.server_learning_rate != 1:
        yield "federation.server_learning_rate has no effect without a server_optimiser"
    if plan.personal.steps and not plan.finetuning.rounds:
        yield "personal.steps has no effect without finetuning: there is no model to adapt"
    if plan.finetuning.benign_only_sites and plan.beside(Stage.FINETUNING) is None:
        yield "finetuning.benign_only_sites has no effect: no part of the loss uses benign images"
    if plan.finetuning.rounds and not plan.evaluation.validation_fraction:
        yield "evaluation.validation_fraction is 0: no round can be chosen, so the last one is used"


def min_updates(plan: TrainingPlan) -> int:
    """Return the number of accepted updates that is enough for a round of any stage."""
    quorums = (plan.stage(stage).quorum for stage in stages_of(plan))
    return max([plan.federation.min_sites, *quorums])


def check_network(name: str) -> None:
    """Try a network of another package; the built-in one needs torch, which can wait.

    Raises:
        PlanError: It is not installed here, or fails.
    """
    if find_entry(Group.NETWORKS, name, {BUILT_IN}, PlanError) is None and name == BUILT_IN:
        return
    from mamfed_common.model.malignancy_net import backbone_of

    backbone_of(name)
