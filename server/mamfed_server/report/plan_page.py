"""``mamfed-server check``: a plan in words: what will happen, how long, what it tolerates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from mamfed_common.errors import MamfedError
from mamfed_common.plan import Stage, StagePlan, TrainingPlan, read_plan
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.runtime.wording import counted, size, span
from mamfed_server.run.participants import stages_of
from mamfed_server.run.plan_checks import min_updates, without_effect
from mamfed_server.run_folder.folder import PLAN, RoundRecord, RunFolder

SAFE_MIN_SITES = 3
"""An average over fewer shows each site what the others sent, or nearly so."""
COMPACT = 0.38
"""Share of the bytes that ``compact`` sends (``docs/decisions/0024-compact-wire.md``)."""
WHO = {
    Stage.PRETRAINING: "every site that has benign cases",
    Stage.FINETUNING: "every site that has malignant cases with masks",
}


def page(plan: TrainingPlan, sites: Sequence[str] | None, runs: Path | None) -> list[str]:
    """Return the page, a line each.

    Args:
        plan: The plan.
        sites: The approved sites; None: they are not known here.
        runs: The folder of this home's runs, by which a round is measured; None: there is none.
    """
    said = ["What will happen", *_indented(_happens(plan))]
    said += ["How long", *_indented(_lasts(plan, runs))]
    said += ["What it tolerates", *_indented([*tolerance(plan, sites), *_waits(plan)])]
    notes = [*without_effect(plan), *privacy(plan)]
    return said + (["Note", *_indented(notes)] if notes else [])


def tolerance(plan: TrainingPlan, sites: Sequence[str] | None = None) -> list[str]:
    """Say how many sites a round can lose before the run fails; of approved sites if known."""
    wanted = min_updates(plan)
    rule = f"a round needs {counted(wanted, 'accepted update')}, or the run ends as failed"
    if sites is None:
        return [f"{rule}: of {wanted} sites none may be missing, of {wanted + 1} one may"]
    there, spare = len(sites), len(sites) - wanted
    named = f"{counted(there, 'site is', 'sites are')} approved" + _names(sites)
    if spare < 0:
        more = counted(-spare, "site")
        return [f"{rule}; {named}: start refuses the plan until {more} more can take part"]
    if spare == 0:
        return [
            f"{rule}; {named}: none may be missing, so one site that is offline, late or refused "
            "ends the run (resume goes on when it is back); "
            f"approve {wanted + 1} sites, or lower min_sites, to tolerate a loss"
        ]
    return [f"{rule}; {named}: {counted(spare, 'site')} may be missing from a round"]


def privacy(plan: TrainingPlan) -> list[str]:
    """Warn of an average over so few sites that each sees what the others sent."""
    floor = plan.federation.min_sites
    if floor >= SAFE_MIN_SITES:
        return []
    return [
        f"warning: min_sites is {floor}: an average over fewer than {SAFE_MIN_SITES} sites shows "
        "them what the others sent"
    ]


def _happens(plan: TrainingPlan) -> Iterator[str]:
    for number, stage in enumerate(stages_of(plan), start=1):
        part = plan.stage(stage)
        yield (
            f"stage {number}, {stage}: {counted(part.rounds, 'round')} of {part.in_words()} at "
            f"{WHO[stage]}, {counted(part.batch_size, 'image')} of "
            f"{plan.image_size} x {plan.image_size} pixels a step"
        )
    whole = sum(tensor.nbytes for tensor in expected_state(plan).values())
    sent = size(round(whole * (COMPACT if plan.federation.wire == "compact" else 1)))
    yield f"each round sends the network, {sent}, to every site, and as much comes back"
    if not plan.finetuning.rounds:
        yield "no stage 2: the network learns to draw healthy tissue, and marks nothing"
        return
    every = plan.evaluation.every
    when = "each round" if every == 1 else f"every {every} rounds"
    yield (
        f"after {when} of finetuning {plan.evaluation.validation_fraction:.0%} of each site's "
        f"patients choose the best one; {_tested(plan)} are tested at the end"
    )
    if plan.makes_personal_models:
        yield f"then each site adapts the model to its own patients, {plan.personal.steps} steps"


def _tested(plan: TrainingPlan) -> str:
    if plan.evaluation.folds:
        return f"those of fold {plan.evaluation.fold} of {plan.evaluation.folds}"
    return f"{plan.evaluation.test_fraction:.0%}"


def _lasts(plan: TrainingPlan, runs: Path | None) -> Iterator[str]:
    total, known = 0.0, True
    for stage in stages_of(plan):
        part = plan.stage(stage)
        measured = [] if runs is None else _measured(runs, plan, stage)
        if measured:
            seconds = fmean(r.seconds for r in measured)
            total += seconds * part.rounds
            yield (
                f"{stage}: about {span(seconds * part.rounds)}, as a round took {span(seconds)} in "
                "earlier runs here"
            )
        else:
            known = False
            yield f"{stage}: {_work(part)}; a round lasts as long as its slowest site needs"
        yield f"{stage}: at the very most {span(part.rounds * part.deadline_seconds)}"
    if known:
        yield f"together about {span(total)}, then the test"
        return
    yield (
        "how long a step takes, each site says by mamfed-client preflight --plan; status says when "
        "the run ends once each stage has done a round"
    )


def _work(part: StagePlan) -> str:
    if part.local_steps is not None:
        return f"{counted(part.rounds * part.local_steps, 'step')} at each site"
    assert part.local_epochs is not None
    passes = counted(part.rounds * part.local_epochs, "pass", "passes")
    return f"{passes} over a site's own images, {part.batch_size} a step"


def _measured(runs: Path, plan: TrainingPlan, stage: Stage) -> list[RoundRecord]:
    """Return the rounds of earlier runs whose stage was the same work."""
    found: list[RoundRecord] = []
    for path in sorted(runs.glob(f"*/{PLAN}")):
        try:
            other = read_plan(path)
        except MamfedError:
            continue
        if _work_of(other, stage) == _work_of(plan, stage):
            found += [r for r in RunFolder(path.parent).rounds() if r.stage is stage]
    return found


def _work_of(plan: TrainingPlan, stage: Stage) -> object:
    part = plan.stage(stage)
    steps = part.local_epochs, part.local_steps, part.batch_size
    return plan.image_size, plan.network, plan.precision, steps


def _waits(plan: TrainingPlan) -> Iterator[str]:
    federation = plan.federation
    joining = span(federation.join_seconds)
    yield (
        f"before the first round the other approved sites have {joining} to come once enough are "
        "there"
        if federation.join_seconds
        else "the first round begins as soon as enough sites are there; later ones join the next"
    )
    yield f"a site that lost its connection is waited for {span(federation.offline_seconds)}"
    for stage in stages_of(plan):
        part = plan.stage(stage)
        yield (
            f"a site that is slow in {stage} is given three times what it needed before, at least "
            f"{span(part.min_deadline_seconds)} and at most {span(part.deadline_seconds)}"
        )


def _names(sites: Sequence[str]) -> str:
    return f" ({', '.join(sites)})" if sites else ""


def _indented(lines: Sequence[str] | Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]
