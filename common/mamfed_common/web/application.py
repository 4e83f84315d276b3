"""One Starlette application: a role's pages, signing in and out, and the assets of the kit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.wording import printable
from mamfed_common.web import passwords
from mamfed_common.web.guard import ASSETS, SIGN_IN, Guard, Rules
from mamfed_common.web.limits import Buckets
from mamfed_common.web.pages import KIT, Pages, form_of, go_to
from mamfed_common.web.sessions import IDLE_SECONDS, OneTimeAddress, Sessions

TRIES, TRIES_PER_SECOND = 5.0, 1 / 20
"""Attempts to sign in: five at once from one address, then one every 20 s."""
LOCAL = "local"


@dataclass(frozen=True)
class Door:
    """How one signs in: with the one-time address, or with a name and a password.

    Attributes:
        address: The one-time address; None: by password.
        password_file: The password file; None: by address.
    """

    address: OneTimeAddress | None = None
    password_file: Path | None = None


def make_app(pages: Pages, routes: Sequence[BaseRoute], rules: Rules, door: Door) -> ASGIApp:
    """Return the guarded application of a role."""
    sessions = Sessions()
    entrance = _Entrance(pages, rules, door, sessions)
    assets = StaticFiles(directory=str(files(KIT).joinpath("assets")))
    own = [
        Route(SIGN_IN, entrance.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", entrance.sign_out, methods=["POST"]),
        Mount(ASSETS.rstrip("/"), _Cached(assets)),
    ]

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, MamfedError)
        return pages.notice(request, "That did not work", printable(str(error)), 409)

    def refuse_file(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        return pages.notice(request, "That did not work", printable(os_error_line(error)), 500)

    def missing(request: Request, _: Exception) -> Response:
        return pages.notice(request, "There is no such page", "Its address may be old.", 404)

    handlers = {MamfedError: refuse, OSError: refuse_file, 404: missing}
    app = Starlette(routes=[*own, *routes], exception_handlers=handlers)
    return Guard(app, rules, sessions)


class _Entrance:
    """Signing in and out."""

    def __init__(self, pages: Pages, rules: Rules, door: Door, sessions: Sessions) -> None:
        self._pages, self._rules, self._door, self._sessions = pages, rules, door, sessions
        self._tries = Buckets(TRIES, TRIES_PER_SECOND)

    async def sign_in(self, request: Request) -> Response:
        if request.method == "POST" and self._door.password_file:
            return await self._by_password(request, self._door.password_file)
        token, address = request.query_params.get("token", ""), self._door.address
        if request.state.session is not None:
            return go_to("/")
        if token and address:
            if address.redeem(token):  # 256 random bits need no limit of attempts
                return self._signed_in(LOCAL)
            return self._form(request, "This address was used before, or is of an earlier start.")
        return self._form(request, "")

    async def sign_out(self, request: Request) -> Response:
        self._sessions.close(request.cookies.get(self._rules.cookie, ""))
        response = go_to(SIGN_IN)
        response.delete_cookie(self._rules.cookie, path="/", httponly=True, samesite="strict")
        return response

    async def _by_password(self, request: Request, path: Path) -> Response:
        if self._wait(request):
            return self._form(request, "Too many attempts: wait a minute.", 429)
        form = await form_of(request)
        name, password = form.get("name", ""), form.get("password", "")
        if await to_thread.run_sync(lambda: passwords.is_right(path, name, password)):
            return self._signed_in(name)
        return self._form(request, "Name or password is wrong.")

    def _wait(self, request: Request) -> float:
        return self._tries.take(request.client.host if request.client else "")

    def _form(self, request: Request, problem: str, status: int = 401) -> Response:
        status = status if problem else 200
        by_password = self._door.password_file is not None
        return self._pages.show(
            request, "sign_in.html.j2", status, problem=problem, by_password=by_password
        )

    def _signed_in(self, who: str) -> Response:
        response = go_to("/")
        response.set_cookie(
            self._rules.cookie, self._sessions.open(who), max_age=int(IDLE_SECONDS), path="/",
            secure=self._rules.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return response


class _Cached:
    """Lets browsers keep the assets, whose addresses carry the version."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_cached(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                cache = (b"cache-control", b"private, max-age=86400")
                message = {**message, "headers": [*message["headers"], cache]}  # type: ignore[misc]
            await send(message)

        await self._app(scope, receive, send_cached)  # type: ignore[arg-type]
