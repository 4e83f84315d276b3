"""What a coordinator's people are told (``notify`` in ``server.yaml``), read from its home."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mamfed_common.notify.conditions import certificate_ends, days_until, disk_is_nearly_full
from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.wording import span
from mamfed_server.admission.certificate_authority import load_server_certificate
from mamfed_server.admission.registry import load_sites
from mamfed_server.run.resume import position_of
from mamfed_server.run.state import RunState, RunStatus, stage_needs
from mamfed_server.run_folder.event_log import PHASES
from mamfed_server.service.status import CoordinatorStatus, read_status
from mamfed_server.settings import ServerHome


def notices(home: ServerHome, notify: Notify) -> Iterator[Notice]:
    """Yield what holds now and a person should know.

    Raises:
        SetupError: A certificate or a site's file is damaged.
        DataError: The run's summary is damaged.
    """
    now = datetime.now(UTC)
    status = read_status(home)
    if (run := status.run) is not None:
        yield from _ended(run)
        yield from _failed_round(run)
        yield from _paused(run)
        yield from _gone(status, run, notify.gone_minutes * 60, now)
    yield from _certificates(home, notify, now)
    yield from disk_is_nearly_full(notify, home.path)


def _ended(run: RunStatus) -> Iterator[Notice]:
    if run.state is RunState.RUNNING or not run.events:
        return
    why = f": {run.reason}" if run.reason else ""
    resume = f"To resume it: mamfed-server resume {run.run}"
    yield Notice(
        "run ended",
        f"run {run.run} {run.state} {run.events[-1].get('time')}",
        f"run {run.run} {run.state.clause}, {run.progress()}",
        f"The run {run.state.clause}{why}.\n"
        + ("Its report lies in its folder." if run.state is RunState.FINISHED else resume),
    )


def _failed_round(run: RunStatus) -> Iterator[Notice]:
    failed = [e for e in run.latest_events if e.get("event") == "below the floor"]
    if run.state is not RunState.RUNNING or not failed:
        return
    last = failed[-1]
    done = {(str(stage), number) for stage, number in map(position_of, run.rounds)}
    stage, number = str(last.get("stage")), last.get("server_round")
    if (stage, number) in done:
        return
    yield Notice(
        "round failed",
        f"run {run.run} {stage} round {number} failed",
        f"{stage} round {number} of run {run.run} had too few updates",
        f"{last.get('warning')}. It is repeated by itself; see mamfed-server status.",
    )


def _paused(run: RunStatus) -> Iterator[Notice]:
    phases = [e for e in run.latest_events if e.get("event") in PHASES]
    if run.state is not RunState.RUNNING or not phases or phases[-1]["event"] != "paused":
        return
    yield Notice(
        "run paused",
        f"run {run.run} paused since {phases[-1].get('since')}",
        f"run {run.run} is paused: too few sites are there",
        f"{stage_needs(phases[-1])}. It goes on by itself when sites return.",
    )


def _gone(
    status: CoordinatorStatus, run: RunStatus, seconds: float, now: datetime
) -> Iterator[Notice]:
    began = str(run.latest_events[0].get("time")) if run.latest_events else ""
    for site in status.sites:
        since = site.since or began
        if site.connected is not False or not since:
            continue
        missing = (now - datetime.fromisoformat(since)).total_seconds()
        if missing < seconds:
            continue
        yield Notice(
            "site gone",
            f"site {site.site} gone since {since}",
            f"site {site.site} has been missing for {span(missing)}",
            f"Run {run.run}: {run.doing()}. Ask the site for: mamfed-client status",
        )


def _certificates(home: ServerHome, notify: Notify, now: datetime) -> Iterator[Notice]:
    days = days_until(load_server_certificate(home).not_valid_after_utc, now)
    remedy = "Renew it with: mamfed-server sites rotate. A running server uses it at once."
    yield from certificate_ends(notify, "the server", days, remedy)
    for entry in load_sites(home).values():
        if entry.status != "active":
            continue
        days = days_until(entry.expiry(), now)
        remedy = f"Ask {entry.site} to run mamfed-client enroll, and approve its new request."
        yield from certificate_ends(notify, f"site {entry.site}", days, remedy)
