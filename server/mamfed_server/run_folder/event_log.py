"""The event log of a run: ``events.jsonl``, one line per event.

It is never truncated or rewritten. It therefore records rounds that were repeated after a restart,
and a resumed run knows the warnings of earlier processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mamfed_common.runtime.bounded import parse_json
from mamfed_common.runtime.wording import printable
from mamfed_server.run_folder.jsonl import append_line, read_lines
from mamfed_server.run_folder.room import Again, once

EVENTS = "events.jsonl"
PHASES = {
    "waiting": "waiting for sites",
    "paused": "paused, because too few sites are there",
    "round": "between two rounds",
    "test": "testing on held-out patients",
    "personal models": "sites are adapting the model to their own patients",
}
"""Events that start a phase of a run, and what the run does in it while no round is under way."""
Event = dict[str, Any]
"""``time`` (UTC, ISO 8601), ``event`` (its kind), optionally ``warning``, and further facts."""


def utc_now() -> str:
    """Return the current time as UTC, ISO 8601, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def local_time(time: str) -> str:
    """Return an ISO 8601 time in this machine's time zone, with the date unless it is today."""
    try:
        moment = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return "an unknown time"
    is_today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M}"


def in_words(event: Event) -> str:
    """Return an event as text: ``round: stage pretraining; server round 1; sites north, south``."""
    facts = (
        f"{key.replace('_', ' ')} {_fact(value)}"
        for key, value in event.items()
        if key not in ("time", "event") and value not in ({}, [], None, "")
    )
    text = ": ".join(part for part in (str(event.get("event")), "; ".join(facts)) if part)
    return printable(text)


def as_log_line(event: Event) -> str:
    """Return an event as one line for a journal: ``TIME round stage=finetuning server_round=1``."""
    facts = (f"{key}={value}" for key, value in event.items() if key not in ("time", "event"))
    return printable(" ".join((str(event["time"]), str(event["event"]), *facts)))


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({_fact(reason)})" for name, reason in value.items())
    return ", ".join(map(_fact, value)) if isinstance(value, list) else str(value)


class EventLog:
    """Writes the events of a run to its folder and passes them to a listener."""

    def __init__(
        self, on_event: Callable[[Event], None] | None = None, again: Again = once
    ) -> None:
        """Keep events in memory until :meth:`open` names the folder.

        Args:
            on_event: Called with every event.
            again: Repeats what the machine has no room for.
        """
        self._on_event, self._again = on_event, again
        self._path: Path | None = None
        self._early: list[Event] = []

    def open(self, folder: Path) -> None:
        """Write earlier events to a folder's log, and later ones as they happen."""
        self._path = folder / EVENTS
        for event in self._early:
            self._append(self._path, event)
        self._early = []

    def write(self, kind: str, **facts: Any) -> None:
        """Log an event; facts are JSON values."""
        event = {"time": utc_now(), "event": kind, **facts}
        if self._path is None:
            self._early.append(event)
        else:
            self._append(self._path, event)
        if self._on_event:
            self._on_event(event)

    def _append(self, path: Path, event: Event) -> None:
        self._again(lambda: append_line(path, json.dumps(event)))

    def events(self) -> list[Event]:
        """Return all events of the run, including those of earlier processes."""
        if self._path is None:
            return [*self._early]
        folder = self._path.parent
        return self._again(lambda: read_events(folder))

    def warnings(self) -> list[str]:
        """Return the distinct warnings, in order of first occurrence."""
        return list(dict.fromkeys(e["warning"] for e in self.events() if "warning" in e))


def read_events(folder: Path) -> list[Event]:
    """Read the events of a run folder, skipping unreadable lines, such as after a crash."""
    events = []
    for line in read_lines(folder / EVENTS):
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events
