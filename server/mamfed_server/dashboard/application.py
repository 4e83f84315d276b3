"""The coordinator's pages: the run, sites, results and the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mamfed_common.plan import Stage
from mamfed_common.web.live import Lines, Live
from mamfed_common.web.pages import Look, Pages
from mamfed_common.web.serving import Listen, serve
from mamfed_server.admission.registry import load_sites
from mamfed_server.dashboard import event_view
from mamfed_server.dashboard.actions import past_actions
from mamfed_server.dashboard.decisions import decisions
from mamfed_server.dashboard.result_pages import ResultPages
from mamfed_server.dashboard.run_view import dice_curves, loss_curves, run_view
from mamfed_server.dashboard.site_pages import SitePages
from mamfed_server.dashboard.site_states import site_views
from mamfed_server.dashboard.work_pages import WorkPages
from mamfed_server.run.state import latest_run, run_status_of
from mamfed_server.service.status import read_status
from mamfed_server.settings import ServerHome, load_settings

NAV = (("/", "Run"), ("/sites", "Sites"), ("/plans", "Start"), ("/results", "Results"))
NAV_LOG = ("/log", "Log")
RECENT = 8
"""Latest events on the first page."""


def serve_dashboard(
    home: ServerHome, listen: Listen, every_seconds: float, on_ready: Callable[[str], None]
) -> None:
    """Serve the pages of a home until SIGTERM or Ctrl-C.

    Args:
        home: The coordinator's home.
        listen: Where and for whom.
        every_seconds: How often the home is read while a page is open.
        on_ready: Called with the address to open.

    Raises:
        SetupError: The home or ``listen`` cannot be used.
        LinkError: The address cannot be bound.
    """
    name = load_settings(home).name
    look = Look(f"{name}: coordinator", "server", (*NAV, NAV_LOG))
    pages = Pages("mamfed_server.dashboard", look)
    pages.environment.globals["zone"] = datetime.now().astimezone().tzname()
    run = RunPage(home, pages, every_seconds)
    routes = [
        Route("/", run.show),
        Route("/live", run.live.stream),
        Route("/log", run.log),
        Route("/log/live", run.log_live.stream),
        *SitePages(home, pages).routes(),
        *WorkPages(home, pages).routes(),
        *ResultPages(home, pages).routes(),
    ]
    serve(pages, routes, listen, home.path, on_ready)


class RunPage:
    """The first page, and the log: what is going on."""

    def __init__(self, home: ServerHome, pages: Pages, every_seconds: float) -> None:
        """Read a home every so many seconds while somebody looks."""
        self._home, self._pages = home, pages
        self.live = Live(self.panels, every_seconds=every_seconds)
        self.log_live = Live(dict, self._journal, every_seconds=every_seconds)

    def panels(self) -> Mapping[str, str]:
        """Return the panels of the first page as they are now."""
        now, home = datetime.now(UTC), self._home
        status, entries = read_status(home), load_sites(home)
        sites = site_views(home, status, entries, now)
        run = run_view(status, sites, now)
        rounds, events = (status.run.rounds, status.run.events) if status.run else ([], [])
        curves = {
            "dice": dice_curves(rounds),
            "stage2": loss_curves(rounds, Stage.FINETUNING),
            "stage1": loss_curves(rounds, Stage.PRETRAINING),
        }
        part = self._pages.part
        return {
            "run": part("run_panel.html.j2", run=run),
            "decisions": part(
                "decisions_panel.html.j2",
                decisions=decisions(home, status, run, entries, now, sites),
            ),
            "sites": part("sites_panel.html.j2", sites=sites),
            "numbers": part("numbers_panel.html.j2", curves=curves),
            "recent": part(
                "recent_panel.html.j2",
                lines=event_view.event_lines(events, {})[:RECENT],
            ),
        }

    def show(self, request: Request) -> Response:
        """Answer with the first page."""
        panels = {name: Markup(html) for name, html in self.panels().items()}
        return self._pages.show(request, "first.html.j2", panels=panels)

    def log(self, request: Request) -> Response:
        """Answer with the event log of the latest run, filtered."""
        folder, query = latest_run(self._home.runs), dict(request.query_params)
        run = None if folder is None else run_status_of(folder)
        events = run.events if run else []
        return self._pages.show(
            request,
            "log.html.j2",
            run=run,
            lines=event_view.event_lines(events, query),
            kinds=event_view.kinds_of(events),
            sites=event_view.sites_of(events),
            query={"kind": query.get("kind", ""), "site": query.get("site", "")},
            after=event_view.position(run),
            actions=event_view.event_lines(past_actions(self._home), {}),
        )

    def _journal(self, after: str, query: Mapping[str, str]) -> Lines:
        folder: Path | None = latest_run(self._home.runs)
        if folder is None:
            return Lines(after, "")
        run = run_status_of(folder)
        known = event_view.known_of(after, run)
        lines = event_view.event_lines(run.events[known or 0 :], query)
        html = self._pages.part("event_lines.html.j2", lines=lines) if lines else ""
        return Lines(event_view.position(run), html, whole=known is None)
