"""The pages on which a person approves and revokes sites."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from mamfed_common.errors import SetupError
from mamfed_common.web.pages import Pages, form_of, go_to
from mamfed_server.admission import approval
from mamfed_server.admission.approval import Approval
from mamfed_server.admission.registry import load_sites
from mamfed_server.dashboard import actions
from mamfed_server.dashboard.decisions import keep_request, waiting_requests
from mamfed_server.dashboard.site_states import WARN_DAYS
from mamfed_server.settings import ServerHome

READ_OUT = (
    "Phone the site, on a number that did not come with the request. Let it read its fingerprint "
    "to you, and read yours to it. Approve only if both are the same."
)


class SitePages:
    """Sites, requests, and what can be done with them."""

    def __init__(self, home: ServerHome, pages: Pages) -> None:
        """Serve the sites of a home."""
        self._home, self._pages = home, pages

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/sites", self.show),
            Route("/sites/request", self.add_request, methods=["POST"]),
            Route("/sites/approve", self.ask_approve, methods=["GET"]),
            Route("/sites/approve", self.approve, methods=["POST"]),
            Route("/sites/aside", self.put_aside, methods=["POST"]),
            Route("/sites/revoke", self.ask_revoke, methods=["GET"]),
            Route("/sites/revoke", self.revoke, methods=["POST"]),
            Route("/sites/welcome", self.welcome),
        ]

    def show(self, request: Request) -> Response:
        """Answer with all sites and requests."""
        now = datetime.now(UTC)
        return self._pages.show(
            request,
            "sites.html.j2",
            requests=waiting_requests(self._home),
            sites=list(load_sites(self._home).values()),
            days={n: (e.expiry() - now).days for n, e in load_sites(self._home).items()},
            warn_days=WARN_DAYS,
            done=request.query_params.get("done", ""),
            welcome=request.query_params.get("welcome", ""),
        )

    async def add_request(self, request: Request) -> Response:
        """Keep a pasted request, and show it."""
        text = (await form_of(request)).get("request", "")
        name = keep_request(self._home, text)
        return go_to(f"/sites/approve?request={name}")

    def ask_approve(self, request: Request) -> Response:
        """Ask whether a request is to be approved, with both fingerprints."""
        name = request.query_params.get("request", "")
        asked = actions.request_called(self._home, name)
        kind = approval.consider(self._home, asked, replace=True)
        replaces = kind is Approval.REPLACEMENT
        warning = "The site is known with another key, which will be revoked for ever."
        return self._pages.show(
            request,
            "approve.html.j2",
            name=name,
            asked=asked,
            kind=str(kind),
            text=[READ_OUT, *([warning] if replaces else [])],
            own=approval.own_fingerprint(self._home),
            replaces=replaces,
        )

    async def approve(self, request: Request) -> Response:
        """Approve what the person has compared."""
        form = await form_of(request)
        if form.get("confirmed") != "yes":
            raise SetupError("the fingerprints were not compared, so nothing was changed")
        who = request.state.session.who
        target = actions.approve(
            self._home, who, form.get("request", ""), form.get("fingerprint", ""),
            replace=form.get("replace") == "yes",
        )  # fmt: skip
        site = target.name.removesuffix(".welcome.json")
        return go_to(f"/sites?done=approved&welcome={site}")

    async def put_aside(self, request: Request) -> Response:
        """Remove a request."""
        name = (await form_of(request)).get("request", "")
        actions.put_aside(self._home, request.state.session.who, name)
        return go_to("/sites?done=removed")

    def ask_revoke(self, request: Request) -> Response:
        """Ask whether a site is to be revoked."""
        entry = approval.revocable(self._home, request.query_params.get("site", ""))
        return self._pages.confirm(
            request,
            title=f"Revoke {entry.site}?",
            text=[
                "A running server refuses it within seconds. It can return only with new keys, "
                "which you would approve anew.",
            ],
            facts={
                "Contact": entry.contact or "none given",
                "Approved": f"{entry.approved_at:%Y-%m-%d}",
            },
            action="/sites/revoke",
            fields={"site": entry.site},
            check=f"Yes, {entry.site} must not take part any more",
            button="Revoke",
            back="/sites",
            danger=True,
        )

    async def revoke(self, request: Request) -> Response:
        """Revoke a site."""
        form = await form_of(request)
        if form.get("confirmed") != "yes":
            raise SetupError("not confirmed, so nothing was changed")
        actions.revoke(self._home, request.state.session.who, form.get("site", ""))
        return go_to("/sites?done=revoked")

    def welcome(self, request: Request) -> Response:
        """Download the welcome file of an approved site."""
        site = request.query_params.get("site", "")
        path = self._home.path / f"{site}.welcome.json"
        if site not in load_sites(self._home) or not path.is_file():
            raise SetupError("found no welcome file of that site in the home")
        return FileResponse(path, filename=path.name, media_type="application/json")
