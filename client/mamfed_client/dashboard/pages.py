"""The site's pages: their panels, what a click does, and the pages that ``predict`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from anyio import to_thread
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mamfed_client.dashboard.left_view import left_view
from mamfed_client.dashboard.plans_view import PlansView, PlanView, decide
from mamfed_client.dashboard.snapshot import SiteReader, Snapshot
from mamfed_client.dashboard.studies_view import check_page, page
from mamfed_client.disclosure.plan_store import Decision
from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes
from mamfed_common.runtime.wording import printable
from mamfed_common.web.application import LOCAL
from mamfed_common.web.live import Live
from mamfed_common.web.pages import Look, Pages, form_of, go_to

PACKAGE = "mamfed_client.dashboard"
OWN_PAGE = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Policy of a page that ``predict`` or ``data check`` wrote: its pictures are in it, no script."""
PANELS: Mapping[str, Sequence[str]] = {
    "/": ("now", "waiting", "sum", "machine"),
    "/data": ("data",),
    "/plans": ("plans",),
    "/left": ("left",),
    "/predictions": ("studies",),
    "/models": ("models",),
}
"""The panels of each page, by its address."""
NAV = [
    ("/", "Now"),
    ("/data", "Data"),
    ("/plans", "Plans"),
    ("/left", "What left"),
    ("/predictions", "Predictions"),
    ("/models", "Models"),
]
EVERY_SECONDS = 2.0

DECISIONS = {"approve": Decision.APPROVED, "refuse": Decision.REFUSED}


class SitePages:
    """The pages of one site."""

    def __init__(self, reader: SiteReader, name: str, checks: Sequence[Path] = ()) -> None:
        """Show what a reader reads.

        Args:
            reader: Reads the site's home.
            name: The site's name.
            checks: Pages of ``data check --html`` that the person named.
        """
        self.reader, self._checks = reader, tuple(checks)
        self.pages = Pages(PACKAGE, Look(f"Site {name}", "client", NAV))
        environment = self.pages.environment
        environment.globals["checks"] = [path.name for path in checks]
        environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]

    def routes(self) -> list[BaseRoute]:
        """Return the addresses of the pages."""
        routes: list[BaseRoute] = []
        for address, panels in PANELS.items():
            live = Live(partial(self._panels, panels), every_seconds=EVERY_SECONDS)
            stream = f"/live{address}".rstrip("/")
            routes += [Route(stream, live.stream), Route(address, self._page(address, stream))]
        return [
            *routes,
            Route("/plans/{sha256}/{decision}", self.ask, methods=["GET"]),
            Route("/plans/{sha256}/{decision}", self.decide, methods=["POST"]),
            Route("/left/report.txt", self.report),
            Route("/left/audit.jsonl", self.audit),
            Route("/predictions/{number:int}/index.html", self.study),
            Route("/predictions/{number:int}/studies/{study}.html", self.study),
            Route("/checks/{number:int}", self.check),
        ]

    def _page(self, address: str, stream: str) -> Callable[[Request], Response]:
        title = dict(NAV)[address]

        def show(request: Request) -> Response:
            parts = self._panels(PANELS[address])
            panels = {name: Markup(html) for name, html in parts.items()}  # rendered, so escaped
            return self.pages.show(
                request, "site.html.j2", panels=panels, stream=stream, heading=title
            )

        return show

    def _panels(self, names: Sequence[str]) -> Mapping[str, str]:
        seen: Snapshot = self.reader.read()
        return {name: self.pages.part(f"{name}.html.j2", seen=seen) for name in names}

    def ask(self, request: Request) -> Response:
        """Show a plan in words beside the bounds, and ask before it is approved or refused."""
        decision, plan, plans = self._asked(request)
        return self.pages.show(
            request, "decide.html.j2", plan=plan, release=plans.release,
            approves=decision is Decision.APPROVED, action=request.url.path,
        )  # fmt: skip

    async def decide(self, request: Request) -> Response:
        """Record a decision, as ``mamfed-client plan`` does, and show the plans."""
        decision, plan, _ = await to_thread.run_sync(lambda: self._asked(request))
        form = await form_of(request)
        if decision is Decision.APPROVED and form.get("confirmed") != "yes":
            raise SetupError("nothing was changed: tick that you have read the plan, then approve")
        who = request.state.session.who
        by = "" if who == LOCAL else who
        await to_thread.run_sync(lambda: decide(self.reader.home, plan.sha256, decision, by))
        return go_to("/plans")

    def _asked(self, request: Request) -> tuple[Decision, PlanView, PlansView]:
        word, sha256 = request.path_params["decision"], request.path_params["sha256"]
        plans = self.reader.read().plans
        if plans.value is None:
            raise SetupError(plans.error)
        found = [plan for plan in plans.value.plans if plan.sha256 == sha256]
        if word not in DECISIONS or not found:
            raise SetupError("no such plan is here; go back to the plans")
        return DECISIONS[word], found[0], plans.value

    def report(self, request: Request) -> Response:
        """Answer with the report for a data-protection officer, as text."""
        seen = left_view(self.reader.home)
        return PlainTextResponse("\n".join([seen.broken] if seen.broken else seen.sentences) + "\n")

    def audit(self, request: Request) -> Response:
        """Answer with the audit log itself."""
        path = self.reader.home.audit
        content = read_bytes(path, STATE_BYTES) if path.exists() else b""
        headers = {"content-disposition": 'attachment; filename="audit.jsonl"'}
        return Response(content, 200, headers, "application/jsonl")

    def study(self, request: Request) -> Response:
        """Answer with a page that ``predict`` wrote."""
        number, study = request.path_params["number"], request.path_params.get("study", "")
        return self._own(request, page(self.reader.predictions, number, study))

    def check(self, request: Request) -> Response:
        """Answer with a page that ``data check`` wrote."""
        return self._own(request, check_page(self._checks, request.path_params["number"]))

    def _own(self, request: Request, content: bytes | None) -> Response:
        if content is None:
            text = "It was removed, or mamfed did not write it."
            return self.pages.notice(request, "There is no such page", printable(text), 404)
        return HTMLResponse(content, headers={"content-security-policy": OWN_PAGE})
