"""``mamfed-server status --watch``: a live table in a terminal, else one line per event."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import sleep

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mamfed_common.runtime.terminal import Screen
from mamfed_server.admission.registry import NO_SITES
from mamfed_server.report.participation import RoundMark, mark_of
from mamfed_server.run.state import RunState, RunStatus
from mamfed_server.run_folder.event_log import Event, in_words, local_time
from mamfed_server.service.status import (
    CoordinatorStatus,
    SiteStatus,
    lines,
    read_status,
    run_lines,
)
from mamfed_server.settings import ServerHome

POLL_SECONDS = 1.0
MAX_ROUNDS = 40
"""Maximum rounds shown; older ones are dropped."""
UNDER_WAY = "…"
STYLES = {"accepted": "green", "refused": "bold red", "silent": "bold yellow", "absent": "red"}


def watch(
    home: ServerHome, screen: Screen | None = None, pause: Callable[[float], None] = sleep
) -> None:
    """Show the status of the run until it ends or Ctrl-C is pressed.

    A terminal shows one table, redrawn in place. Elsewhere, the full status is printed at the start
    and at the end, with one line per event in between.

    Args:
        home: The coordinator's home.
        screen: Where to show it; None: stdout.
        pause: Waits for the given number of seconds between two reads of the status.
    """
    screen = screen or Screen(highlight=False)
    with suppress(KeyboardInterrupt):
        (_watch_live if screen.is_terminal else _watch_by_line)(home, screen, pause)


def table(status: CoordinatorStatus, at: datetime) -> Group:
    """Return the lines about the run and a table of its sites by rounds, worst site first."""
    head = [Text(line) for line in run_lines(status, at)]
    if not status.sites:
        return Group(*head, Text(NO_SITES))
    sites = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("site", "connected", "last contact", "updates", _rounds_heading(status.run)):
        sites.add_column(name, no_wrap=name == "site")
    for site in status.sites:
        sites.add_row(
            Text(site.site),
            Text(site.presence(), "" if site.connected is not False else "bold red"),
            Text(local_time(site.last_contact) if site.last_contact else "-"),
            Text(f"{site.accepted} of {site.rounds}"),
            _round_marks(status.run, site),
        )
    legend = "  ".join(f"{mark.sign} {mark.words}" for mark in RoundMark)
    return Group(*head, Text(), sites, Text(f"{legend}  {UNDER_WAY} under way", "dim"))


def _watch_live(home: ServerHome, screen: Screen, pause: Callable[[float], None]) -> None:
    status = read_status(home)
    with Live(table(status, _utc_now()), console=screen, auto_refresh=False) as live:
        while _is_running(status):
            pause(POLL_SECONDS)
            status = read_status(home)
            live.update(table(status, _utc_now()), refresh=True)


def _watch_by_line(home: ServerHome, screen: Screen, pause: Callable[[float], None]) -> None:
    status = read_status(home)
    run, seen = _run_name(status), _events(status)
    _print_status(screen, status)
    while _is_running(status):
        pause(POLL_SECONDS)
        status = read_status(home)
        if _run_name(status) != run:
            run, seen = _run_name(status), []
        for event in _events(status)[len(seen) :]:
            screen.print(f"{local_time(str(event.get('time', '')))} {in_words(event)}")
        seen = _events(status)
    if seen:
        _print_status(screen, status)


def _print_status(screen: Screen, status: CoordinatorStatus) -> None:
    for line in lines(status, _utc_now()):
        screen.print(line)


def _is_running(status: CoordinatorStatus) -> bool:
    return status.run is not None and status.run.state is RunState.RUNNING


def _rounds_heading(run: RunStatus | None) -> str:
    total = 0 if run is None else len(run.rounds)
    return f"last {MAX_ROUNDS} of {total} rounds" if total > MAX_ROUNDS else "rounds"


def _round_marks(run: RunStatus | None, site: SiteStatus) -> Text:
    """Return one mark per round, as in the report, and the round under way last."""
    marks = Text()
    if run is None:
        return marks
    for record in run.rounds[-MAX_ROUNDS:]:
        mark = mark_of(record, site.site)
        marks.append(mark.sign, STYLES[mark.style])
    begun = [e for e in run.latest_events if e.get("event") == "round"]
    if run.under_way is not None and site.site in begun[-1].get("sites", ()):
        marks.append(UNDER_WAY)
    return marks


def _run_name(status: CoordinatorStatus) -> str:
    return status.run.run if status.run else ""


def _events(status: CoordinatorStatus) -> list[Event]:
    return list(status.run.events) if status.run else []


def _utc_now() -> datetime:
    return datetime.now(UTC)
