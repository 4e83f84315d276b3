"""A plan in words, and beside a site's bounds: for the terminal and for the site's page."""

from __future__ import annotations

from collections.abc import Iterator

from mamfed_client.disclosure.plan_admission import check_bounds
from mamfed_client.site.policy import Policy, missing_for_training
from mamfed_common.plan import EvaluationPlan, Stage, TrainingPlan
from mamfed_common.runtime.wording import counted, span


def in_words(plan: TrainingPlan) -> Iterator[str]:
    """Yield sentences that say what a plan makes this site do."""
    yield f"It trains on images of {plan.image_size} x {plan.image_size} pixels."
    for stage in Stage:
        part = plan.stage(stage)
        if not part.rounds:
            yield f"It skips {stage.value}."
            continue
        yield (
            f"In {stage.value}: {counted(part.rounds, 'round')}, each of "
            f"{part.in_words()}, with {part.batch_size} of this site's images per step, learning "
            f"rate up to {part.learning_rate:g}, to be answered within "
            f"{span(part.deadline_seconds)}."
        )
    yield _held_out(plan.evaluation)
    if plan.makes_personal_models:
        yield (
            f"After the last round this site adapts the final model to its own patients: "
            f"{counted(plan.personal.steps, 'step')}, learning rate up to "
            f"{plan.personal.learning_rate:g}. "
            "That model stays here; set policy.personal: false to make none."
        )
    sites = counted(plan.federation.min_sites, "site")
    yield f"The server averages the updates of {sites} or more."


def _held_out(split: EvaluationPlan) -> str:
    choosing = f"{split.validation_fraction:.0%} to choose the best round."
    if split.folds is None:
        tested = f"{split.test_fraction:.0%} are kept for the test"
        return f"Of this site's patients {tested} and {choosing}"
    return (
        f"Part {split.fold + 1} of {split.folds} of this site's patients is kept for the test, and "
        f"of the others {choosing}"
    )


def against_bounds(policy: Policy, plan: TrainingPlan) -> Iterator[str]:
    """Yield a line for each bound with the plan's value and the limit, then what is withheld."""
    for check in check_bounds(policy, plan):
        verdict = "ok" if check.fits else f"NOT ALLOWED by {check.key}"
        yield f"{check.name}: {check.found:g}, allowed {check.limit}: {verdict}"
    if policy.bounds.hours:
        yield f"This site answers only at {policy.bounds.hours}, local time."
    yield from missing_for_training(policy, plan)
