"""The event log of a run on the page: numbered lines, filtered by kind and site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mamfed_common.runtime.wording import printable
from mamfed_server.run.state import WAITS, RunStatus, waiting_in_words
from mamfed_server.run_folder.event_log import Event, in_words, local_time

MOST_LINES = 300
"""Maximum lines on the page; the file holds them all."""
BAD = frozenset({"refused", "went", "failed", "died", "audit log rewritten", "checkpoint damaged"})
DOUBTFUL = frozenset(
    {"warning", "waiting", "paused", "below the floor", "two processes", "not described"}
)
HIDDEN = frozenset({"plan_sha256", "flower_run"})
"""Facts that say nothing to a person."""


WORDS = {
    "started": "The run has started",
    "resumed": "The run goes on",
    "came": "{site} has connected",
    "went": "{site} is not connected any more",
    "described": "{site} has described its data",
    "not described": "{site} could not describe its data: {reason}",
    "round": "Round {server_round} of {stage} begins with {sites}",
    "test": "The test on held-out patients begins",
    "personal models": "Sites adapt the model to their own patients: {sites}",
    "asked again": "{site} was asked again: {reason}",
    "finished": "The run has finished",
    "stopped": "The run was stopped",
    "failed": "The run failed: {reason}",
    "died": "The run ended: {reason}",
    "site approved": "{site} was approved by {by}",
    "site revoked": "{site} was revoked by {by}",
    "stop asked": "Stop, asked by {by}",
    "start asked": "Start of {plan}, asked by {by}",
    "resume asked": "Resume of {run}, asked by {by}",
}
"""Events in everyday words; others are shown by their kind and facts."""


class _Facts(dict[str, object]):
    """The facts of an event as text; a missing one is unknown."""

    def __getitem__(self, key: str) -> str:
        value = self.get(key, "unknown")
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return printable(text)


class EventLine(NamedTuple):
    """One event on the page.

    Attributes:
        time: When, in this machine's time zone.
        stamp: When, UTC, ISO 8601.
        level: ``failed``, ``warning`` or ``idle``.
        text: What happened.
    """

    time: str
    stamp: str
    level: str
    text: str


def position(run: RunStatus | None) -> str:
    """Return what identifies the last event: the run and the number of its events."""
    return "" if run is None else f"{run.run}:{len(run.events)}"


def known_of(after: str, run: RunStatus) -> int | None:
    """Return how many events of a run a page knows; None: it shows another run."""
    name, _, number = after.rpartition(":")
    if name != run.run or not number.isdecimal():
        return None
    return min(int(number), len(run.events))


def event_lines(events: Sequence[Event], query: Mapping[str, str]) -> list[EventLine]:
    """Return the events that a filter lets pass, latest first."""
    chosen = [event for event in events if _fits(event, query)]
    return [_line(event) for event in reversed(chosen[-MOST_LINES:])]


def kinds_of(events: Sequence[Event]) -> list[str]:
    """Return the kinds of events there are."""
    return sorted({str(event.get("event")) for event in events})


def sites_of(events: Sequence[Event]) -> list[str]:
    """Return the sites that events name."""
    return sorted({site for event in events for site in _named(event)})


def _fits(event: Event, query: Mapping[str, str]) -> bool:
    kind, site = query.get("kind", ""), query.get("site", "")
    return (not kind or event.get("event") == kind) and (not site or site in _named(event))


def _named(event: Event) -> set[str]:
    named = {str(event["site"])} if "site" in event else set()
    for key in ("sites", "ready", "missing", "absent", "accepted"):
        value = event.get(key)
        named |= set(value) if isinstance(value, (list, dict)) else set()
    return named


def _line(event: Event) -> EventLine:
    kind, stamp = str(event.get("event")), str(event.get("time", ""))
    level = "failed" if kind in BAD else "warning" if kind in DOUBTFUL else "idle"
    shown = {key: value for key, value in event.items() if key not in HIDDEN}
    if "warning" in shown:  # it says everything in one sentence
        shown = {key: shown[key] for key in ("time", "event", "warning")}
        text = f"{kind}: {shown['warning']}" if kind != "warning" else str(shown["warning"])
    elif kind in WORDS:
        text = WORDS[kind].format_map(_Facts(shown))
    elif kind in WAITS:
        text = waiting_in_words(event)
    else:
        text = in_words(shown)
    return EventLine(local_time(stamp), stamp, level, text)
