"""The text of ``mamfed-server check``: what a plan does, how long it takes, what it tolerates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from mamfed_common.errors import MamfedError
from mamfed_common.plan import Stage, StagePlan, TrainingPlan, read_plan
from mamfed_common.plan.weights_size import weights_bytes
from mamfed_common.runtime.wording import counted, size, span
from mamfed_server.run.participants import stages_of
from mamfed_server.run.plan_checks import min_updates, without_effect
from mamfed_server.run_folder.folder import PLAN, RunFolder
from mamfed_server.run_folder.round_record import RoundRecord

SAFE_MIN_SITES = 3
"""An average over fewer sites shows each of them what the others sent, or nearly so."""
COMPACT = 0.38
"""Bytes sent with ``compact`` relative to float32 (``docs/decisions/0024-compact-wire.md``)."""
TRAINING_SITES = {
    Stage.PRETRAINING: "every site that has benign cases",
    Stage.FINETUNING: "every site that has malignant cases with masks",
}


def page(plan: TrainingPlan, sites: Sequence[str] | None, runs: Path | None) -> list[str]:
    """Return the lines of the page.

    Args:
        plan: The plan.
        sites: The approved sites; None: unknown.
        runs: The folder of earlier runs, whose rounds give the estimates; None: there is none.
    """
    lines = ["What will happen", *_indented(_training_lines(plan))]
    lines += ["How long", *_indented(_duration_lines(plan, runs))]
    lines += ["What it tolerates", *_indented([*tolerance(plan, sites), *_waiting_lines(plan)])]
    notes = [*without_effect(plan), *privacy(plan)]
    return lines + (["Note", *_indented(notes)] if notes else [])


def tolerance(plan: TrainingPlan, sites: Sequence[str] | None = None) -> list[str]:
    """Return how many sites a round can lose before the run waits, given the approved sites."""
    required = min_updates(plan)
    rule = f"a round needs {counted(required, 'accepted update')}; with fewer, it is done again"
    if sites is None:
        return [f"{rule}: of {required} sites none may be missing, of {required + 1} one may"]
    available, spare = len(sites), len(sites) - required
    approved = f"{counted(available, 'site is', 'sites are')} approved" + _names(sites)
    if spare < 0:
        more = counted(-spare, "more site")
        return [f"{rule}; {approved}: start refuses the plan until {more} can take part"]
    if spare == 0:
        return [
            f"{rule}; {approved}: none may be missing, so the run waits for each site that is "
            "offline, late or refused; "
            f"approve {required + 1} sites or lower min_sites to tolerate a loss"
        ]
    return [f"{rule}; {approved}: {counted(spare, 'site')} may be missing from a round"]


def privacy(plan: TrainingPlan) -> list[str]:
    """Return a warning if an average of so few updates shows each site what the others sent."""
    floor = plan.federation.min_sites
    if floor >= SAFE_MIN_SITES:
        return []
    return [
        f"warning: min_sites is {floor}: an average over fewer than {SAFE_MIN_SITES} sites shows "
        "them what the others sent"
    ]


def _training_lines(plan: TrainingPlan) -> Iterator[str]:
    for number, stage in enumerate(stages_of(plan), start=1):
        stage_plan = plan.stage(stage)
        yield (
            f"stage {number}, {stage}: {counted(stage_plan.rounds, 'round')} of "
            f"{stage_plan.in_words()} at {TRAINING_SITES[stage]}, "
            f"{counted(stage_plan.batch_size, 'image')} of "
            f"{plan.image_size} x {plan.image_size} pixels per step"
        )
    sent = size(round(weights_bytes(plan) * (COMPACT if plan.federation.wire == "compact" else 1)))
    yield f"each round sends the network, {sent}, to every site and receives as much from it"
    if not plan.finetuning.rounds:
        yield "no stage 2: the network learns to draw healthy tissue but marks nothing"
        return
    every = plan.evaluation.every
    when = "each round" if every == 1 else f"every {every} rounds"
    yield (
        f"after {when} of finetuning, {plan.evaluation.validation_fraction:.0%} of each site's "
        f"patients validate the model, which chooses the best round; {_tested(plan)} are tested "
        "at the end"
    )
    if plan.makes_personal_models:
        yield f"then each site adapts the model to its own patients in {plan.personal.steps} steps"


def _tested(plan: TrainingPlan) -> str:
    if plan.evaluation.folds:
        return f"those of fold {plan.evaluation.fold} of {plan.evaluation.folds}"
    return f"{plan.evaluation.test_fraction:.0%}"


def _duration_lines(plan: TrainingPlan, runs: Path | None) -> Iterator[str]:
    total, is_known = 0.0, True
    for stage in stages_of(plan):
        stage_plan = plan.stage(stage)
        measured = [] if runs is None else _comparable_rounds(runs, plan, stage)
        if measured:
            seconds = fmean(r.seconds for r in measured)
            total += seconds * stage_plan.rounds
            yield (
                f"{stage}: about {span(seconds * stage_plan.rounds)}, as a round took "
                f"{span(seconds)} in earlier runs here"
            )
        else:
            is_known = False
            yield (
                f"{stage}: {_workload(stage_plan)}; a round takes as long as its slowest site needs"
            )
        yield f"{stage}: at most {span(stage_plan.rounds * stage_plan.deadline_seconds)}"
    if is_known:
        yield f"together about {span(total)}, then the test"
        return
    yield (
        "each site measures the time of a step with mamfed-client preflight --plan; status shows "
        "the expected end once each stage has completed a round"
    )


def _workload(stage_plan: StagePlan) -> str:
    if stage_plan.local_steps is not None:
        return f"{counted(stage_plan.rounds * stage_plan.local_steps, 'step')} at each site"
    assert stage_plan.local_epochs is not None
    passes = counted(stage_plan.rounds * stage_plan.local_epochs, "pass", "passes")
    return f"{passes} over a site's own images, {stage_plan.batch_size} per step"


def _comparable_rounds(runs: Path, plan: TrainingPlan, stage: Stage) -> list[RoundRecord]:
    """Return the rounds of earlier runs that did the same work in a stage."""
    records: list[RoundRecord] = []
    for path in sorted(runs.glob(f"*/{PLAN}")):
        try:
            other = read_plan(path)
        except MamfedError:
            continue
        if _work_key(other, stage) == _work_key(plan, stage):
            records += [r for r in RunFolder(path.parent).rounds() if r.stage is stage]
    return records


def _work_key(plan: TrainingPlan, stage: Stage) -> object:
    """Return everything that the duration of a round depends on."""
    stage_plan = plan.stage(stage)
    steps = stage_plan.local_epochs, stage_plan.local_steps, stage_plan.batch_size
    return plan.image_size, plan.network, plan.precision, steps


def _waiting_lines(plan: TrainingPlan) -> Iterator[str]:
    federation = plan.federation
    yield (
        "once enough sites are connected, the first round waits up to "
        f"{span(federation.join_seconds)} for the other approved sites"
        if federation.join_seconds
        else "the first round begins as soon as enough sites are connected; others join later"
    )
    yield f"a round waits {span(federation.offline_seconds)} for a site that lost its connection"
    for stage in stages_of(plan):
        stage_plan = plan.stage(stage)
        yield (
            f"{stage} allows a slow site three times what it needed before, at least "
            f"{span(stage_plan.min_deadline_seconds)} and at most "
            f"{span(stage_plan.deadline_seconds)}"
        )


def _names(sites: Sequence[str]) -> str:
    return f" ({', '.join(sites)})" if sites else ""


def _indented(lines: Sequence[str] | Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]
