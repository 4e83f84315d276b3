"""``mamfed-server status --watch``: a live table of sites by rounds; a line an event elsewhere."""

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
from mamfed_server.run_folder.event_log import Event, in_words
from mamfed_server.service.status import (
    CoordinatorStatus,
    SiteStatus,
    lines,
    local_time,
    read_status,
    run_lines,
)
from mamfed_server.settings import ServerHome

LOOK_SECONDS = 1.0
MOST_ROUNDS = 40
"""Rounds whose marks are shown; the last ones."""
NOW = "…"
STYLES = {"accepted": "green", "refused": "bold red", "silent": "bold yellow", "absent": "red"}


def watch(
    home: ServerHome, screen: Screen | None = None, pause: Callable[[float], None] = sleep
) -> None:
    """Show how the run stands until it ends or Ctrl-C is pressed.

    In a terminal it is one table that is drawn anew; elsewhere each event is a line, and the whole
    is printed before the first and after the last.

    Args:
        home: The coordinator's home.
        screen: Where to show it; None: stdout.
        pause: Waits for so many seconds between two looks.
    """
    screen = screen or Screen(highlight=False)
    with suppress(KeyboardInterrupt):
        (_live if screen.is_terminal else _by_line)(home, screen, pause)


def table(now: CoordinatorStatus, at: datetime) -> Group:
    """Lay out a run: what is to be said of it, then its sites by rounds, the worst first."""
    said = [Text(line) for line in run_lines(now, at)]
    if not now.sites:
        return Group(*said, Text(NO_SITES))
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("site", "connected", "last contact", "updates", _heading(now.standing)):
        found.add_column(name, no_wrap=name == "site")
    for site in now.sites:
        found.add_row(
            Text(site.site),
            Text(site.presence(), "" if site.connected is not False else "bold red"),
            Text(local_time(site.last_contact) if site.last_contact else "-"),
            Text(f"{site.accepted} of {site.rounds}"),
            _marks(now.standing, site),
        )
    legend = "  ".join(f"{mark.sign} {mark.words}" for mark in RoundMark)
    return Group(*said, Text(), found, Text(f"{legend}  {NOW} under way", "dim"))


def _live(home: ServerHome, screen: Screen, pause: Callable[[float], None]) -> None:
    now = read_status(home)
    with Live(table(now, _at()), console=screen, auto_refresh=False) as live:
        while _goes_on(now):
            pause(LOOK_SECONDS)
            now = read_status(home)
            live.update(table(now, _at()), refresh=True)


def _by_line(home: ServerHome, screen: Screen, pause: Callable[[float], None]) -> None:
    now = read_status(home)
    run, seen = _run(now), _events(now)
    _say(screen, now)
    while _goes_on(now):
        pause(LOOK_SECONDS)
        now = read_status(home)
        if _run(now) != run:
            run, seen = _run(now), []
        for event in _events(now)[len(seen) :]:
            screen.print(f"{local_time(str(event.get('time', '')))} {in_words(event)}")
        seen = _events(now)
    if seen:
        _say(screen, now)


def _say(screen: Screen, now: CoordinatorStatus) -> None:
    for line in lines(now, _at()):
        screen.print(line)


def _goes_on(now: CoordinatorStatus) -> bool:
    return now.standing is not None and now.standing.state is RunState.RUNNING


def _heading(run: RunStatus | None) -> str:
    total = 0 if run is None else len(run.rounds)
    return f"the last {MOST_ROUNDS} of {total} rounds" if total > MOST_ROUNDS else "rounds"


def _marks(run: RunStatus | None, site: SiteStatus) -> Text:
    """Return a sign a round, as the report has them; the one under way last."""
    found = Text()
    if run is None:
        return found
    for record in run.rounds[-MOST_ROUNDS:]:
        mark = mark_of(record, site.site)
        found.append(mark.sign, STYLES[mark.style])
    begun = [e for e in run.present if e.get("event") == "round"]
    if run.under_way is not None and site.site in begun[-1].get("sites", ()):
        found.append(NOW)
    return found


def _run(now: CoordinatorStatus) -> str:
    return now.standing.run if now.standing else ""


def _events(now: CoordinatorStatus) -> list[Event]:
    return list(now.standing.events) if now.standing else []


def _at() -> datetime:
    return datetime.now(UTC)
