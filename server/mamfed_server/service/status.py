"""What ``mamfed-server status`` says: the run, its sites, what comes next."""

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
from mamfed_server.service.status_file import read_board
from mamfed_server.settings import ServerHome

NO_RUN = "no run yet: mamfed-server start --plan plan.yaml begins one"


class SiteStatus(NamedTuple):
    """A site of the run as it is now.

    Attributes:
        site: Its name.
        connected: Whether it is connected; None while the run does not run.
        since: Since when (UTC, ISO 8601); empty where it has not come since the run's start.
        last_contact: When it was last in touch with the server; empty: never.
        rounds: Rounds of the stages that it belongs to.
        accepted: Those with an accepted update of the site.
        reasons: Why the others have none, and in how many rounds each.
    """

    site: str
    connected: bool | None
    since: str
    last_contact: str
    rounds: int
    accepted: int
    reasons: dict[str, int]

    def presence(self) -> str:
        """Say whether it is connected."""
        if self.connected is None:
            return "-"
        if self.connected:
            return "connected"
        return (
            f"missing since {local_time(self.since)}" if self.since else "missing since the start"
        )

    def updates(self) -> str:
        """Say in how many rounds its update was accepted, and why not in the others."""
        why = reasons_in_words(self.reasons)
        return f"{self.accepted} of {self.rounds}" + (f" ({why})" if why else "")


class CoordinatorStatus(NamedTuple):
    """A coordinator as it is now.

    Attributes:
        standing: The run that is worked on, or was last; None: there is no run.
        sites: Its sites, the worst first: missing ones, then those with the fewest updates.
        board: What the server process wrote into ``status.json`` about this run.
        supervisor_pid: The process of ``mamfed-server start``; None: none runs.
    """

    standing: RunStatus | None
    sites: Sequence[SiteStatus]
    board: Mapping[str, Any]
    supervisor_pid: int | None


def read_status(home: ServerHome) -> CoordinatorStatus:
    """Look at a coordinator's home.

    Raises:
        SetupError: A site's file is damaged.
        DataError: The run's summary is damaged.
    """
    running, folder = holder(home.lock), latest_run(home.runs)
    approved = active_sites(home)
    standing = None if folder is None else run_status_of(folder)
    board = read_board(home.path)
    if standing is None or board.get("run") != standing.run:
        board = {}
    sites = _sites(standing, approved, board.get("last_contact", {}))
    return CoordinatorStatus(standing, sites, board, running.pid if running else None)


def document(now: CoordinatorStatus, at: datetime) -> dict[str, Any]:
    """Return it for scripts."""
    found: dict[str, Any] = {**now.board, "supervisor_pid": now.supervisor_pid}
    found |= {"time": at.isoformat(timespec="seconds"), "sites": [s._asdict() for s in now.sites]}
    if (run := now.standing) is None:
        return found | {"run": None, "state": None, "doing": NO_RUN}
    ends = run.ends_at(at)
    position = run.under_way
    return found | {
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


def lines(now: CoordinatorStatus, at: datetime) -> list[str]:
    """Return it for people, a line each."""
    found = run_lines(now, at)
    if not now.sites:
        return [*found, f"sites: {NO_SITES}"]
    width = max(len(site.site) for site in now.sites)
    found.append("sites, the worst first:")
    for site in now.sites:
        contact = f", last contact {local_time(site.last_contact)}" if site.last_contact else ""
        presence = "" if site.connected is None else f"{site.presence()}{contact}; "
        found.append(f"  {site.site:{width}}  {presence}updates {site.updates()}")
    return [*found, *_twins(now)]


def run_lines(now: CoordinatorStatus, at: datetime) -> list[str]:
    """Return what is to be said of the run alone."""
    if (run := now.standing) is None:
        return [NO_RUN]
    found = [f"run {run.run}: {run.doing()}", f"  {run.progress()}{_end(run, at)}"]
    if run.state is RunState.RUNNING and run.under_way is not None:
        found[0] = f"run {run.run}: running, {run.doing()}"
    nothing = "none" if run.state is RunState.FINISHED else "none yet"
    found.append("  validation Dice: " + (nothing if run.dice is None else f"{run.dice:.3f}"))
    found.append("  checkpoint: " + (run.kept.words() if run.kept else nothing))
    if run.state in (RunState.STOPPED, RunState.FAILED, RunState.INTERRUPTED):
        found.append(f"  mamfed-server resume {run.run} goes on with it")
    if run.events:
        event = run.events[-1]
        found.append(f"  last: {event.get('event')} at {local_time(str(event.get('time', '')))}")
    return found


def _twins(now: CoordinatorStatus) -> list[str]:
    """Warn of sites that run twice."""
    twins = now.board.get("twins", {}) if now.supervisor_pid else {}
    return [
        f"warning: {warning(site)} (since {found['since']}, from {', '.join(found['addresses'])})"
        for site, found in sorted(twins.items())
    ]


def local_time(time: str) -> str:
    """Say a moment (ISO 8601) in the time of this machine; the date too if that is another."""
    try:
        moment = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return "an unknown time"
    is_today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M}"


def _end(run: RunStatus, at: datetime) -> str:
    if run.state is not RunState.RUNNING:
        return ""
    ends = run.ends_at(at)
    if ends is None:
        return "; when it ends is known once a round of each stage is done"
    late = " (this round takes longer than those before)" if ends <= at else ""
    return f"; ends about {local_time(max(ends, at + timedelta(minutes=1)).isoformat())}{late}"


def _sites(
    run: RunStatus | None, approved: Collection[str], contacts: Mapping[str, str]
) -> list[SiteStatus]:
    counted = [] if run is None else run.attendance()
    found = []
    for site in sorted({*approved, *(line.site for line in counted)}):
        own = [line for line in counted if line.site == site]
        reasons: Counter[str] = Counter()
        for line in own:
            reasons.update(line.reasons)
        connected, since = _presence(run, site)
        total, accepted = sum(x.rounds for x in own), sum(x.accepted for x in own)
        now = SiteStatus(
            site, connected, since, contacts.get(site, ""), total, accepted, dict(reasons)
        )
        found.append(now)
    return sorted(found, key=_badness)


def _badness(site: SiteStatus) -> tuple[bool, float, str]:
    """Order sites, the worst first."""
    share = site.accepted / site.rounds if site.rounds else 1.0
    return site.connected is not False, share, site.site


def _presence(run: RunStatus | None, site: str) -> tuple[bool | None, str]:
    if run is None or run.state is not RunState.RUNNING:
        return None, ""
    seen = [e for e in run.present if e.get("site") == site and e["event"] in ("came", "went")]
    if not seen:
        return False, ""
    return seen[-1]["event"] == "came", str(seen[-1]["time"])
