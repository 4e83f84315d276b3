"""How a run stands: the one place that tells it, for every command, page and message.

A run's summary says how it ended; it is there from the end until the run goes on. Without one, the
lock beside its folder says whether a process works on it: the kernel lets the lock go with its
process, whatever ended that. Which round is under way, and who is connected, say the events since
the last start; what is kept, the checkpoints themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mamfed_common.checkpoint import read_facts
from mamfed_common.errors import CheckpointError, MamfedError
from mamfed_common.plan import Stage, TrainingPlan, read_plan
from mamfed_server.run.resume import Position, position_of, round_positions
from mamfed_server.run.round_choice import RoundChoice
from mamfed_server.run_folder.attendance import Attendance, attendance
from mamfed_server.run_folder.event_log import PHASES, Event, read_events
from mamfed_server.run_folder.folder import LATEST, PLAN, PREVIOUS, SUMMARY, RoundRecord, RunFolder

MEASURED_ROUNDS = 5
"""Of a stage, the last so many rounds tell how long another takes."""
GONE = "no process works on it any more"


class RunState(StrEnum):
    """What a run is doing, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """Somebody paused it by ``mamfed-server stop``; it can go on."""
    FAILED = "failed"
    """It came to an end that is none, such as too few updates; it can go on."""
    INTERRUPTED = "interrupted"
    """Its process is gone and has said nothing, as after a kill; it can go on."""

    @property
    def clause(self) -> str:
        """What follows "the run": ``is running``."""
        return {
            "running": "is running",
            "finished": "has finished",
            "stopped": "was stopped",
            "failed": "failed",
            "interrupted": "was interrupted",
        }[self]


class KeptCheckpoint(NamedTuple):
    """A checkpoint that is in the folder, and the round that its weights are of."""

    path: Path
    stage: Stage
    server_round: int

    def words(self) -> str:
        """Say which it is."""
        return f"{self.path.stem}, of {self.stage} round {self.server_round}"


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        run: Its name.
        state: What it is doing, or how it ended.
        reason: Why it failed, or was interrupted.
        plan: Its plan; None: it cannot be read, and ``reason`` says why.
        rounds: Its rounds so far.
        events: What happened to it.
        kept: The checkpoint to use: the best one, or else the latest; None: there is none yet.
        summary: What ``summary.json`` holds; None: it has not ended.
    """

    run: str
    state: RunState
    reason: str
    plan: TrainingPlan | None
    rounds: Sequence[RoundRecord]
    events: Sequence[Event]
    kept: KeptCheckpoint | None
    summary: dict[str, Any] | None

    @property
    def present(self) -> list[Event]:
        """The events since the run last started or went on."""
        starts = [i for i, e in enumerate(self.events) if e.get("event") in ("started", "resumed")]
        return list(self.events[starts[-1] :]) if starts else []

    @property
    def under_way(self) -> Position | None:
        """The round that is being trained; None where none is."""
        if self.state is not RunState.RUNNING or self.plan is None:
            return None
        begun = [e for e in self.present if e.get("event") in ("round", "test")]
        if not begun or begun[-1]["event"] == "test":
            return None
        found = Stage(begun[-1]["stage"]), int(begun[-1]["server_round"])
        return None if found in {position_of(record) for record in self.rounds} else found

    @property
    def plan_sha256(self) -> str:
        """The plan's name, as the run was begun under it."""
        told = str((self.summary or {}).get("plan_sha256", ""))
        return told or (self.plan.sha256() if self.plan else "")

    @property
    def dice(self) -> float | None:
        """Validation Dice over all images, of the round chosen so far."""
        chosen = RoundChoice(self.rounds).chosen
        return None if chosen is None else chosen.pooled_validation_dice

    def attendance(self) -> list[Attendance]:
        """Count who took part in how many rounds, of all who could have."""
        known = self.summary or {}
        return attendance(self.rounds, known.get("stages"), known.get("sites", ()))

    def doing(self) -> str:
        """Say in words what the run does now, or how it ended."""
        if self.state is not RunState.RUNNING:
            reason = f": {self.reason}" if self.reason else ""
            return f"{self.state}{reason}"
        if (position := self.under_way) is not None and self.plan is not None:
            stage, server_round = position
            return f"{stage} round {server_round} of {self.plan.stage(stage).rounds}"
        phase = next((e for e in reversed(self.present) if e.get("event") in PHASES), {})
        if phase.get("event") == "waiting":
            return f"waiting for sites: {stage_needs(phase)}"
        return PHASES.get(phase.get("event", ""), "starting")

    def progress(self) -> str:
        """Say how many rounds are done, of how many."""
        planned = None if self.plan is None else self.plan.rounds
        return f"{rounds_in_words(len(self.rounds), planned)} done"

    def ends_at(self, now: datetime) -> datetime | None:
        """Return about when the last round will have ended; None where that is not known yet."""
        if self.state is not RunState.RUNNING or self.plan is None:
            return None
        done = {position_of(record) for record in self.rounds}
        left = [
            stage for stage, number in round_positions(self.plan) if (stage, number) not in done
        ]
        seconds = 0.0
        for stage in set(left):
            taken = [r.seconds for r in self.rounds if r.stage is stage][-MEASURED_ROUNDS:]
            if not taken:
                return None
            seconds += left.count(stage) * fmean(taken)
        return now + timedelta(seconds=seconds - self._since_round(now))

    def _since_round(self, now: datetime) -> float:
        """Return for how long the round under way has run, at most the time that one takes."""
        begun = [e["time"] for e in self.present if e.get("event") == "round"]
        if self.under_way is None or not begun:
            return 0.0
        taken = [r.seconds for r in self.rounds if r.stage is self.under_way[0]]
        past = (now - datetime.fromisoformat(begun[-1])).total_seconds()
        return max(0.0, min(past, fmean(taken[-MEASURED_ROUNDS:]))) if taken else 0.0


def run_status_of(folder: Path) -> RunStatus:
    """Read how the run in a folder stands, at any moment of its life.

    Raises:
        DataError: Its summary is damaged.
    """
    run = RunFolder(folder)
    is_worked_on = run.is_worked_on()  # first: a run that ends meanwhile has its summary by then
    summary = run.read_summary() if (folder / SUMMARY).exists() else None
    events = read_events(folder)
    # Again: a run that goes on meanwhile has taken its lock before its summary was removed.
    state, reason = _state(summary, is_worked_on or run.is_worked_on(), events)
    try:
        plan = read_plan(folder / PLAN)
    except MamfedError as error:
        plan, reason = None, str(error)
    return RunStatus(
        run=folder.resolve().name,
        state=state,
        reason=reason,
        plan=plan,
        rounds=run.rounds(),
        events=events,
        kept=kept_checkpoint(run),
        summary=summary,
    )


def kept_checkpoint(folder: RunFolder) -> KeptCheckpoint | None:
    """Return the checkpoint to use of those that are there: the best, or else the latest."""
    for name in ("best", LATEST, PREVIOUS):
        try:
            facts = read_facts(folder.checkpoint_path(name))
        except CheckpointError:
            continue
        return KeptCheckpoint(folder.checkpoint_path(name), facts.stage, facts.server_round)
    return None


def active_run(runs: Path) -> Path | None:
    """Return the run folder that a process works on; None where there is none."""
    folders = (path.parent for path in sorted(runs.glob(f"*/{PLAN}")))
    return next((folder for folder in folders if RunFolder(folder).is_worked_on()), None)


def latest_run(runs: Path) -> Path | None:
    """Return the run folder that is worked on, or was last; None where there is none."""
    folders = [path.parent for path in runs.glob(f"*/{PLAN}")]
    return active_run(runs) or max(folders, key=_touched, default=None)


def rounds_in_words(done: int, planned: int | None) -> str:
    """Say how many rounds there are, of how many; None: nobody knows."""
    return f"{done} rounds" if planned is None else f"{done} of {planned} rounds"


def stage_needs(waiting: Event) -> str:
    """Say what a ``waiting`` event waits for."""
    missing = waiting.get("missing", {})
    ready = ", ".join(waiting.get("ready", ())) or "none"
    away = ", ".join(f"{site} ({reason})" for site, reason in missing.items()) or "none"
    return f"{waiting.get('stage')} needs {waiting.get('need')}; ready: {ready}; missing: {away}"


def _state(
    summary: dict[str, Any] | None, is_worked_on: bool, events: Sequence[Event]
) -> tuple[RunState, str]:
    if summary is not None:
        return RunState(summary["status"]), str(summary["reason"])
    if is_worked_on:
        return RunState.RUNNING, ""
    last = events[-1] if events else {}
    if last.get("event") == "stopped":  # before its server process had begun
        return RunState.STOPPED, ""
    return RunState.INTERRUPTED, str(last["reason"]) if last.get("event") == "died" else GONE


def _touched(folder: Path) -> int:
    """Return when a run was last written to."""
    files = (folder / name for name in (SUMMARY, "events.jsonl", PLAN))
    return max((path.stat().st_mtime_ns for path in files if path.exists()), default=0)
