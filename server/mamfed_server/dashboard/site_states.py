"""What each site of the run is doing, as far as the coordinator knows, worst first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from mamfed_common.runtime.wording import counted, span
from mamfed_server.admission.registry import SiteEntry
from mamfed_server.run.state import WAITS, RunState, RunStatus
from mamfed_server.run_folder.event_log import Event, local_time
from mamfed_server.run_folder.folder import UPDATES
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.service.status import CoordinatorStatus, SiteStatus
from mamfed_server.settings import ServerHome

SILENT_SECONDS = 10.0
"""The server sees a waiting site every 2 s (``fleet/held_polls.py``), and notes it every 5 s."""
STALE_SECONDS = 15.0
"""Age of ``status.json`` at which its server process, not the sites, is what is silent."""
WARN_DAYS = 30
LEVELS = ("failed", "warning", "ok", "idle")
"""From worst to best; each has a sign and a colour on the page."""


class SiteView(NamedTuple):
    """One site on the page.

    Attributes:
        site: Its name.
        level: One of ``LEVELS``.
        state: What it is doing, in a word or two.
        detail: Since when, or why.
        share: How much of its usual time for a round has passed, 0..1; None: not training.
        updates: How many of its updates were accepted, and why the others were not.
        dice: Its latest validation Dice, as text; empty: none.
        dice_round: The round of stage 2 that it comes from.
        contact: When it last contacted the server; empty: never.
        note: What else a person should know; empty: nothing.
    """

    site: str
    level: str
    state: str
    detail: str
    share: float | None
    updates: str
    dice: str
    dice_round: int
    contact: str
    note: str


def site_views(
    home: ServerHome, status: CoordinatorStatus, entries: Mapping[str, SiteEntry], now: datetime
) -> list[SiteView]:
    """Return the sites of the run and all approved ones, worst first."""
    views = [_view(home, status, site, entries.get(site.site), now) for site in status.sites]
    return sorted(views, key=lambda view: (LEVELS.index(view.level), view.dice or "9", view.site))


def is_stale(status: CoordinatorStatus, now: datetime) -> bool:
    """Return whether the server process of a running run has stopped writing its state."""
    age = _age(str(status.server_facts.get("time", "")), now)
    return status.run is not None and status.run.state is RunState.RUNNING and age > STALE_SECONDS


def _view(
    home: ServerHome,
    status: CoordinatorStatus,
    site: SiteStatus,
    entry: SiteEntry | None,
    now: datetime,
) -> SiteView:
    level, state, detail, share = _state(home, status, site, now)
    dice, dice_round = _dice(status.run, site.site)
    return SiteView(
        site=site.site,
        level=level,
        state=state,
        detail=detail,
        share=share,
        updates=site.updates() if site.rounds else "no round yet",
        dice=dice,
        dice_round=dice_round,
        contact=local_time(site.last_contact) if site.last_contact else "",
        note=_note(status, site.site, entry, now),
    )


State = tuple[str, str, str, float | None]


def _state(home: ServerHome, status: CoordinatorStatus, site: SiteStatus, now: datetime) -> State:
    run = status.run
    if run is None or site.connected is None:
        return ("idle", "Approved", "no run yet", None) if run is None else _at_end(run, site)
    if not site.connected:
        since = f"since {local_time(site.since)}" if site.since else "not yet, since the start"
        return "failed", "Not connected", since, None
    if not is_stale(status, now) and (age := _age(site.last_contact, now)) > SILENT_SECONDS:
        since = local_time(site.last_contact) if site.last_contact else "its connection"
        return "failed", "Silent", f"since {since} ({span(min(age, 1e7))})", None
    if run.under_way is not None and (training := _training(home, run, site.site, now)):
        return training
    return (
        _not_ready(run, site.site)
        or _refused(run, site.site)
        or ("ok", "Connected", "waiting for its next task", None)
    )


def _at_end(run: RunStatus, site: SiteStatus) -> State:
    if site.rounds and site.accepted < site.rounds:
        return "warning", "Missed rounds", f"the run {run.state.clause}", None
    return "idle", "Not needed now", f"the run {run.state.clause}", None


def _training(home: ServerHome, run: RunStatus, site: str, now: datetime) -> State | None:
    """Return what a site does in the round under way; None: it was not asked."""
    begun = [e for e in run.latest_events if e.get("event") == "round"][-1]
    if site not in begun.get("sites", ()):
        return _refused(run, site)
    started = str(begun["time"])
    if _sent_since(home, run.run, site, datetime.fromisoformat(started)):
        return "ok", "Done", "its update has come; waiting for the others", None
    usual = [r.durations[site] for r in run.rounds if site in r.accepted and site in r.durations]
    passed = _age(started, now)
    if not usual:
        return "ok", "Training", f"for {span(passed)}; its first round", None
    expected = sum(usual[-3:]) / len(usual[-3:])
    share = min(1.0, passed / expected) if expected else None
    if passed > 2 * expected + 30:
        return "warning", "Late", f"for {span(passed)}, usually {span(expected)}", share
    return "ok", "Training", f"for {span(passed)} of about {span(expected)}", share


def waiting_phase(run: RunStatus) -> Event | None:
    """Return the event by which a run began to wait for sites; None: it does not wait."""
    phases = (*WAITS, "round", "test", "personal models")
    last = next((e for e in reversed(run.latest_events) if e.get("event") in phases), None)
    return last if last is not None and last["event"] in WAITS else None


def _not_ready(run: RunStatus, site: str) -> State | None:
    """Return why a connected site cannot take part; None: it can, or the run does not wait."""
    why = ((waiting_phase(run) or {}).get("missing") or {}).get(site)
    if why is None:
        return None
    if "described" in why:
        return "ok", "Preparing", "describes its data", None
    return "failed", "Cannot take part", str(why), None


def _refused(run: RunStatus, site: str) -> State | None:
    """Return why the latest round had no update of a site; None: it had one, or was not asked."""
    record: RoundRecord | None = run.rounds[-1] if run.rounds else None
    if record is None or site not in record.refused:
        return None
    state = "Refused" if site in record.answered else "Late"
    level = "failed" if site in record.answered else "warning"
    return level, state, f"round {record.server_round}: {record.refused[site]}", None


def _sent_since(home: ServerHome, run: str, site: str, started: datetime) -> bool:
    try:
        stat = (home.runs / run / UPDATES / f"{site}.update").stat()
    except OSError:
        return False
    return datetime.fromtimestamp(stat.st_mtime, UTC) >= started


def _dice(run: RunStatus | None, site: str) -> tuple[str, int]:
    for record in reversed(run.rounds if run else ()):
        score = record.validation.get(site)
        if score is not None and score.dice is not None:
            return f"{score.dice:.3f}", record.server_round
    return "", 0


def _note(status: CoordinatorStatus, site: str, entry: SiteEntry | None, now: datetime) -> str:
    notes = []
    if site in (status.server_facts.get("twins") or {}):
        notes.append("answers from two processes at once: its home was copied or started twice")
    if entry is None:
        notes.append("no longer approved")
    elif entry.status == "revoked":
        notes.append("revoked")
    elif (left := (entry.expiry() - now).days) < WARN_DAYS:
        notes.append(
            f"its certificate ends in {counted(left, 'day')}"
            if left >= 0
            else "certificate expired"
        )
    return "; ".join(notes)


def _age(time: str, now: datetime) -> float:
    """Return the seconds since a time; infinite if there is none."""
    try:
        return (now - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return float("inf")
