"""What the run is doing, in one headline and a few facts, and the curves of its rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mamfed_common.plan import Stage
from mamfed_common.runtime.wording import counted, span
from mamfed_server.dashboard.site_states import SiteView, is_stale, waiting_phase
from mamfed_server.run.state import RunState, RunStatus, stage_needs
from mamfed_server.run_folder.event_log import local_time
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.service.status import CoordinatorStatus

STAGES = {
    Stage.PRETRAINING: "1, learning the breast",
    Stage.FINETUNING: "2, learning the outlines",
}
LEVEL_OF = {
    RunState.RUNNING: "ok",
    RunState.FINISHED: "ok",
    RunState.STOPPED: "warning",
    RunState.FAILED: "failed",
    RunState.INTERRUPTED: "failed",
}
MOST_POINTS = 500
"""Maximum rounds of a curve; of more, the latest are shown."""


class RunView(NamedTuple):
    """The run on the page.

    Attributes:
        name: Its name; empty: there is none.
        level: ``ok``, ``warning`` or ``failed``.
        headline: One sentence.
        explanation: A second one, such as why it failed; empty: none.
        facts: What else is known, by name.
        done: Completed rounds.
        planned: Planned rounds; 0: unknown.
        can: What may be done with it: ``stop``, ``resume`` or nothing.
    """

    name: str
    level: str
    headline: str
    explanation: str
    facts: dict[str, str]
    done: int
    planned: int
    can: str


def run_view(status: CoordinatorStatus, sites: Sequence[SiteView], now: datetime) -> RunView:
    """Describe the run."""
    run = status.run
    if run is None:
        return RunView("", "idle", "No run yet", "Approve sites, then start a plan.", {}, 0, 0, "")
    level, headline, explanation = _headline(status, run, sites, now)
    is_running = run.state is RunState.RUNNING
    can_resume = not is_running and run.state is not RunState.FINISHED and run.plan is not None
    return RunView(
        name=run.run,
        level=level,
        headline=headline,
        explanation=explanation,
        facts=_facts(run, sites, now),
        done=len(run.rounds),
        planned=run.plan.rounds if run.plan else 0,
        can="stop" if is_running else "resume" if can_resume else "",
    )


def _headline(
    status: CoordinatorStatus, run: RunStatus, sites: Sequence[SiteView], now: datetime
) -> tuple[str, str, str]:
    if run.state is not RunState.RUNNING:
        missed = [site.site for site in sites if site.level == "warning"]
        if run.state is RunState.FINISHED and missed:
            words = "Missed some of its rounds: " if len(missed) == 1 else "Missed rounds: "
            return "warning", "The run has finished", words + ", ".join(missed) + "."
        return LEVEL_OF[run.state], f"The run {run.state.clause}", _sentence(run.reason)
    if is_stale(status, now):
        text = "Its process is starting, was stopped or has no room to write; see logs/server.log."
        return "failed", "The server does not say what it does", text
    if (phase := waiting_phase(run)) is not None:
        word = "Paused until sites come back" if phase["event"] == "paused" else "Waiting for sites"
        return "warning", word, _sentence(stage_needs(phase))
    bad = [f"{site.site} ({site.state})" for site in sites if site.level in ("failed", "warning")]
    return "warning" if bad else "ok", _doing(run), f"Not well: {', '.join(bad)}." if bad else ""


def _doing(run: RunStatus) -> str:
    if run.under_way is None or run.plan is None:
        words = run.doing()
        return words[:1].upper() + words[1:]
    stage, server_round = run.under_way
    return f"Training, round {server_round} of {run.plan.stage(stage).rounds} of {stage}"


def _facts(run: RunStatus, sites: Sequence[SiteView], now: datetime) -> dict[str, str]:
    facts = {"Run": run.run}
    if run.under_way is not None:
        facts["Stage"] = STAGES[run.under_way[0]]
    if run.state is RunState.RUNNING:
        facts["Expected end"] = _end(run, now)
        there = sum(site.level in ("ok", "idle") for site in sites)
        facts["Sites"] = f"{there} of {len(sites)} well"
    best = "none yet" if run.dice is None else f"{run.dice:.3f}"
    facts["Best validation Dice"] = best
    if run.rounds:
        facts["Last round"] = f"took {_clock(run.rounds[-1].seconds)}"
    return facts


def _end(run: RunStatus, now: datetime) -> str:
    ends = run.ends_at(now)
    if ends is None:
        return "known after the first rounds"
    ends = max(ends, now + timedelta(minutes=1))
    return f"about {local_time(ends.isoformat())}, in {span((ends - now).total_seconds())}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return counted(whole, "second")
    return f"{whole // 3600}:{whole // 60 % 60:02} h" if whole >= 3600 else f"{whole // 60} min"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def loss_curves(rounds: Sequence[RoundRecord], stage: Stage) -> dict[str, Any]:
    """Return the training loss by round: of all sites, weighted by their shares, and of each."""

    def overall(record: RoundRecord) -> float | None:
        losses = [(c.share, c.loss) for c in record.accepted.values() if c.loss is not None]
        total = sum(share for share, _ in losses)
        return sum(share * loss for share, loss in losses) / total if total else None

    def of_site(record: RoundRecord, site: str) -> float | None:
        return record.accepted[site].loss if site in record.accepted else None

    return _curves([r for r in rounds if r.stage is stage], overall, of_site, "all sites")


def dice_curves(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return the validation Dice by round of stage 2: over all images, and of each site."""

    def of_site(record: RoundRecord, site: str) -> float | None:
        return record.validation[site].dice if site in record.validation else None

    validated = [r for r in rounds if r.stage is Stage.FINETUNING and r.validation]
    return _curves(validated, lambda r: r.pooled_validation_dice, of_site, "all images")


def _curves(
    rounds: Sequence[RoundRecord],
    overall: Callable[[RoundRecord], float | None],
    of_site: Callable[[RoundRecord, str], float | None],
    name: str,
) -> dict[str, Any]:
    shown = rounds[-MOST_POINTS:]
    sites = sorted({site for record in shown for site in record.expected})
    series: list[dict[str, Any]] = [
        {"label": name, "main": True, "values": [_short(overall(r)) for r in shown]}
    ]
    for site in sites:
        values = [_short(of_site(record, site)) for record in shown]
        if any(value is not None for value in values):
            series.append({"label": site, "values": values})
    return {"x": [record.server_round for record in shown], "series": series}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
