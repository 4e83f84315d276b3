"""The state of a run, derived in one place for every command, page and message.

``summary.json`` says how a run ended; it exists from the end of the run until it is resumed.
Without it, the lock beside the run folder shows whether a process is working on the run: the kernel
releases the lock with its process, however that ended. The events since the last start say which
round is under way and which sites are connected. The checkpoint files say what is kept.
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
from mamfed_common.runtime.wording import counted
from mamfed_server.run.resume import Position, position_of, round_positions
from mamfed_server.run.round_choice import RoundChoice
from mamfed_server.run_folder.attendance import Attendance, attendance
from mamfed_server.run_folder.event_log import PHASES, Event, local_time, read_events
from mamfed_server.run_folder.folder import LATEST, PLAN, PREVIOUS, SUMMARY, RunFolder
from mamfed_server.run_folder.round_record import RoundRecord

MEASURED_ROUNDS = 5
"""Number of latest rounds of a stage whose mean duration predicts the next round."""
GONE = "its process is gone"
WAITS = ("waiting", "paused")
"""Events of a run that has too few sites for its next round."""


class RunState(StrEnum):
    """What a run is doing, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """Paused by ``mamfed-server stop``; it can be resumed."""
    FAILED = "failed"
    """Ended by an error, such as too few updates; it can be resumed."""
    INTERRUPTED = "interrupted"
    """Its process ended without a summary, as after a crash or kill; it can be resumed."""

    @property
    def clause(self) -> str:
        """The state as a predicate of "the run", such as ``is running``."""
        return {
            "running": "is running",
            "finished": "has finished",
            "stopped": "was stopped",
            "failed": "failed",
            "interrupted": "was interrupted",
        }[self]


class KeptCheckpoint(NamedTuple):
    """A checkpoint in the run folder and the round that its weights come from."""

    path: Path
    stage: Stage
    server_round: int

    def words(self) -> str:
        """Return its name and round in words."""
        return f"{self.path.stem}, from {self.stage} round {self.server_round}"


@dataclass(frozen=True)
class RunStatus:
    """The state of a run and everything known about it.

    Attributes:
        run: Its name.
        state: Whether it is running, or how it ended.
        reason: Why it failed or was interrupted.
        plan: Its plan; None: the plan cannot be read, and ``reason`` says why.
        rounds: Its completed rounds.
        events: Its events, oldest first.
        kept: The checkpoint to use, the best or else the latest; None: there is none yet.
        summary: The contents of ``summary.json``; None: the run has not ended.
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
    def latest_events(self) -> list[Event]:
        """The events since the run was last started or resumed."""
        starts = [i for i, e in enumerate(self.events) if e.get("event") in ("started", "resumed")]
        return list(self.events[starts[-1] :]) if starts else []

    @property
    def under_way(self) -> Position | None:
        """The round under way; None: there is none."""
        if self.state is not RunState.RUNNING or self.plan is None:
            return None
        begun = [e for e in self.latest_events if e.get("event") in ("round", "test", *WAITS)]
        if not begun or begun[-1]["event"] != "round":
            return None
        position = Stage(begun[-1]["stage"]), int(begun[-1]["server_round"])
        return None if position in {position_of(record) for record in self.rounds} else position

    @property
    def plan_sha256(self) -> str:
        """SHA-256 of the plan that the run was started with; empty: unknown."""
        recorded = str((self.summary or {}).get("plan_sha256", ""))
        return recorded or (self.plan.sha256() if self.plan else "")

    @property
    def dice(self) -> float | None:
        """Validation Dice over all images for the round chosen so far."""
        chosen = RoundChoice(self.rounds).chosen
        return None if chosen is None else chosen.pooled_validation_dice

    def attendance(self) -> list[Attendance]:
        """Count for every eligible site the rounds that it took part in."""
        summary = self.summary or {}
        return attendance(self.rounds, summary.get("stages"), summary.get("sites", ()))

    def doing(self) -> str:
        """Return in words what the run is doing, or how it ended."""
        if self.state is not RunState.RUNNING:
            reason = f": {self.reason}" if self.reason else ""
            return f"{self.state}{reason}"
        if (position := self.under_way) is not None and self.plan is not None:
            stage, server_round = position
            return f"{stage} round {server_round} of {self.plan.stage(stage).rounds}"
        phase = next((e for e in reversed(self.latest_events) if e.get("event") in PHASES), {})
        if phase.get("event") in WAITS:
            return waiting_in_words(phase)
        return PHASES.get(phase.get("event", ""), "starting")

    def progress(self) -> str:
        """Return in words how many of the planned rounds are done."""
        planned = None if self.plan is None else self.plan.rounds
        return f"{rounds_in_words(len(self.rounds), planned)} done"

    def ends_at(self, now: datetime) -> datetime | None:
        """Return the expected end of the last round; None: not known yet."""
        if self.state is not RunState.RUNNING or self.plan is None:
            return None
        done = {position_of(record) for record in self.rounds}
        remaining = [
            stage for stage, number in round_positions(self.plan) if (stage, number) not in done
        ]
        seconds = 0.0
        for stage in set(remaining):
            durations = [r.seconds for r in self.rounds if r.stage is stage][-MEASURED_ROUNDS:]
            if not durations:
                return None
            seconds += remaining.count(stage) * fmean(durations)
        return now + timedelta(seconds=seconds - self._seconds_into_round(now))

    def _seconds_into_round(self, now: datetime) -> float:
        """Return the age of the round under way, at most the mean duration of its stage."""
        starts = [e["time"] for e in self.latest_events if e.get("event") == "round"]
        if self.under_way is None or not starts:
            return 0.0
        durations = [r.seconds for r in self.rounds if r.stage is self.under_way[0]]
        elapsed = (now - datetime.fromisoformat(starts[-1])).total_seconds()
        return max(0.0, min(elapsed, fmean(durations[-MEASURED_ROUNDS:]))) if durations else 0.0


def run_status_of(folder: Path) -> RunStatus:
    """Read the state of the run in a folder, at any time.

    Raises:
        DataError: Its summary is damaged.
    """
    run = RunFolder(folder)
    # Check the lock before reading the summary: a run that ends in between has written it by then.
    is_worked_on = run.is_worked_on()
    summary = run.read_summary() if (folder / SUMMARY).exists() else None
    events = read_events(folder)
    # Check again: a run that is resumed in between locks its folder before removing its summary.
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
    """Return the best readable checkpoint, or else the latest; None: there is none."""
    for name in ("best", LATEST, PREVIOUS):
        try:
            facts = read_facts(folder.checkpoint_path(name))
        except CheckpointError:
            continue
        return KeptCheckpoint(folder.checkpoint_path(name), facts.stage, facts.server_round)
    return None


def active_run(runs: Path) -> Path | None:
    """Return the run folder that a process is working on; None: there is none."""
    folders = (path.parent for path in sorted(runs.glob(f"*/{PLAN}")))
    return next((folder for folder in folders if RunFolder(folder).is_worked_on()), None)


def latest_run(runs: Path) -> Path | None:
    """Return the active run folder, or else the last modified one; None: there is none."""
    folders = [path.parent for path in runs.glob(f"*/{PLAN}")]
    return active_run(runs) or max(folders, key=_modified_ns, default=None)


def rounds_in_words(done: int, planned: int | None) -> str:
    """Return ``2 of 3 rounds``, or ``2 rounds`` if the planned number is unknown (None)."""
    return counted(done, "round") if planned is None else f"{done} of {planned} rounds"


def waiting_in_words(waiting: Event) -> str:
    """Return in words how many sites a ``waiting`` or ``paused`` event waits for, and which."""
    missing = len(waiting.get("missing", {}))
    of = f"{missing} of {missing + len(waiting.get('ready', ()))} sites" if missing else "sites"
    since = f" since {local_time(waiting['since'])}" if "since" in waiting else ""
    paused = "paused, " if waiting.get("event") == "paused" else ""
    never = "; ".join(f"{site}: {why}" for site, why in waiting.get("of_no_use", {}).items())
    of_no_use = f"; waiting is of no use ({never})" if "of_no_use" in waiting else ""
    return f"{paused}waiting for {of}{since}: {stage_needs(waiting)}{of_no_use}"


def stage_needs(waiting: Event) -> str:
    """Return in words which sites a ``waiting`` event waits for."""
    missing_sites = waiting.get("missing", {})
    ready = ", ".join(waiting.get("ready", ())) or "none"
    missing = ", ".join(f"{site} ({why})" for site, why in missing_sites.items()) or "none"
    return f"{waiting.get('stage')} needs {waiting.get('need')}; ready: {ready}; missing: {missing}"


def _state(
    summary: dict[str, Any] | None, is_worked_on: bool, events: Sequence[Event]
) -> tuple[RunState, str]:
    if summary is not None:
        return RunState(summary["status"]), str(summary["reason"])
    if is_worked_on:
        return RunState.RUNNING, ""
    last = events[-1] if events else {}
    if last.get("event") == "stopped":  # stopped before its server process started
        return RunState.STOPPED, ""
    return RunState.INTERRUPTED, str(last["reason"]) if last.get("event") == "died" else GONE


def _modified_ns(folder: Path) -> int:
    """Return when a run was last modified, in nanoseconds since the epoch."""
    files = (folder / name for name in (SUMMARY, "events.jsonl", PLAN))
    return max((path.stat().st_mtime_ns for path in files if path.exists()), default=0)
