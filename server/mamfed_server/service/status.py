"""The status of a coordinator: its run, the sites of the run, and when the run will end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mamfed_common.runtime.lock import holder
from mamfed_server.admission.registry import NO_SITES, active_sites
from mamfed_server.fleet.duplicate_sites import warning
from mamfed_server.run.state import RunState, RunStatus, latest_run, run_status_of
from mamfed_server.run_folder.attendance import reasons_in_words
from mamfed_server.run_folder.event_log import local_time
from mamfed_server.service.status_file import read_status_file
from mamfed_server.settings import ServerHome

NO_RUN = "no run yet: start one with mamfed-server start --plan plan.yaml"


class SiteStatus(NamedTuple):
    """The current status of one site of the run.

    Attributes:
        site: Its name.
        connected: Whether it is connected; None while the run is not running.
        since: Since when (UTC, ISO 8601); empty: it has not connected since the run started.
        last_contact: When it last contacted the server; empty: never.
        rounds: Rounds of the stages that it belongs to.
        accepted: The rounds in which its update was accepted.
        reasons: For the other rounds, how many have no update for each reason.
    """

    site: str
    connected: bool | None
    since: str
    last_contact: str
    rounds: int
    accepted: int
    reasons: dict[str, int]

    def presence(self) -> str:
        """Return in words whether the site is connected."""
        if self.connected is None:
            return "-"
        if self.connected:
            return "connected"
        return (
            f"missing since {local_time(self.since)}" if self.since else "missing since the start"
        )

    def updates(self) -> str:
        """Return in words how many of its updates were accepted, and why the others were not."""
        why = reasons_in_words(self.reasons)
        return f"{self.accepted} of {self.rounds}" + (f" ({why})" if why else "")


class CoordinatorStatus(NamedTuple):
    """The current status of a coordinator.

    Attributes:
        run: The active run, or the latest one; None: there is no run.
        sites: The sites of the run, worst first: missing ones, then those with the fewest updates.
        server_facts: What the server process wrote to ``status.json`` about this run.
        supervisor_pid: The process of ``mamfed-server start``; None: it is not running.
    """

    run: RunStatus | None
    sites: Sequence[SiteStatus]
    server_facts: Mapping[str, Any]
    supervisor_pid: int | None


def read_status(home: ServerHome) -> CoordinatorStatus:
    """Read the current status of a coordinator from its home.

    Raises:
        SetupError: A site's file is damaged.
        DataError: The run's summary is damaged.
    """
    supervisor, folder = holder(home.lock), latest_run(home.runs)
    approved = active_sites(home)
    run = None if folder is None else run_status_of(folder)
    server_facts = read_status_file(home.path)
    if run is None or server_facts.get("run") != run.run:
        server_facts = {}
    sites = _site_statuses(run, approved, server_facts.get("last_contact", {}))
    return CoordinatorStatus(run, sites, server_facts, supervisor.pid if supervisor else None)


def document(status: CoordinatorStatus, at: datetime) -> dict[str, Any]:
    """Return the status as JSON values, for scripts."""
    values: dict[str, Any] = {**status.server_facts, "supervisor_pid": status.supervisor_pid}
    values |= {
        "time": at.isoformat(timespec="seconds"),
        "sites": [site._asdict() for site in status.sites],
    }
    if (run := status.run) is None:
        return values | {"run": None, "state": None, "doing": NO_RUN}
    ends = run.ends_at(at)
    position = run.under_way
    return values | {
        "run": run.run,
        "state": str(run.state),
        "reason": run.reason,
        "doing": run.doing(),
        "stage": position and str(position[0]),
        "server_round": position and position[1],
        "rounds": len(run.rounds),
        "rounds_planned": run.plan and run.plan.rounds,
        "ends_at": ends and ends.isoformat(timespec="minutes"),
        "pooled_validation_dice": run.dice,
        "checkpoint": str(run.kept.path) if run.kept else None,
        "last_event": run.events[-1] if run.events else None,
    }


def lines(status: CoordinatorStatus, at: datetime) -> list[str]:
    """Return the status as lines of text, for people."""
    result = run_lines(status, at)
    if not status.sites:
        return [*result, f"sites: {NO_SITES}"]
    width = max(len(site.site) for site in status.sites)
    result.append("sites, worst first:")
    for site in status.sites:
        contact = f", last contact {local_time(site.last_contact)}" if site.last_contact else ""
        presence = "" if site.connected is None else f"{site.presence()}{contact}; "
        result.append(f"  {site.site:{width}}  {presence}updates {site.updates()}")
    return [*result, *_duplicate_site_warnings(status)]


def run_lines(status: CoordinatorStatus, at: datetime) -> list[str]:
    """Return the lines about the run, without its sites."""
    if (run := status.run) is None:
        return [NO_RUN]
    result = [f"run {run.run}: {run.doing()}", f"  {run.progress()}{_expected_end(run, at)}"]
    if run.state is RunState.RUNNING and run.under_way is not None:
        result[0] = f"run {run.run}: running, {run.doing()}"
    none = "none" if run.state is RunState.FINISHED else "none yet"
    result.append("  validation Dice: " + (none if run.dice is None else f"{run.dice:.3f}"))
    result.append("  checkpoint: " + (run.kept.words() if run.kept else none))
    if run.state in (RunState.STOPPED, RunState.FAILED, RunState.INTERRUPTED):
        result.append(f"  to resume it: mamfed-server resume {run.run}")
    if run.events:
        event = run.events[-1]
        time = local_time(str(event.get("time", "")))
        result.append(f"  last event: {event.get('event')} at {time}")
    return result


def _duplicate_site_warnings(status: CoordinatorStatus) -> list[str]:
    duplicates = status.server_facts.get("twins", {}) if status.supervisor_pid else {}
    return [
        f"warning: {warning(site)} (since {facts['since']}, from {', '.join(facts['addresses'])})"
        for site, facts in sorted(duplicates.items())
    ]


def _expected_end(run: RunStatus, at: datetime) -> str:
    if run.state is not RunState.RUNNING:
        return ""
    ends = run.ends_at(at)
    if ends is None:
        return "; the expected end is known once each stage has completed a round"
    late = " (this round is taking longer than earlier ones)" if ends <= at else ""
    end = local_time(max(ends, at + timedelta(minutes=1)).isoformat())
    return f"; expected to end at about {end}{late}"


def _site_statuses(
    run: RunStatus | None, approved: Collection[str], contacts: Mapping[str, str]
) -> list[SiteStatus]:
    attendance = [] if run is None else run.attendance()
    statuses = []
    for site in sorted({*approved, *(line.site for line in attendance)}):
        own = [line for line in attendance if line.site == site]
        reasons: Counter[str] = Counter()
        for line in own:
            reasons.update(line.reasons)
        connected, since = _presence(run, site)
        statuses.append(
            SiteStatus(
                site=site,
                connected=connected,
                since=since,
                last_contact=contacts.get(site, ""),
                rounds=sum(line.rounds for line in own),
                accepted=sum(line.accepted for line in own),
                reasons=dict(reasons),
            )
        )
    return sorted(statuses, key=_worst_first)


def _worst_first(site: SiteStatus) -> tuple[bool, float, str]:
    share = site.accepted / site.rounds if site.rounds else 1.0
    return site.connected is not False, share, site.site


def _presence(run: RunStatus | None, site: str) -> tuple[bool | None, str]:
    """Return whether a site is connected, and since when."""
    if run is None or run.state is not RunState.RUNNING:
        return None, ""
    events = [
        e for e in run.latest_events if e.get("site") == site and e["event"] in ("came", "went")
    ]
    if not events:
        return False, ""
    return events[-1]["event"] == "came", str(events[-1]["time"])
