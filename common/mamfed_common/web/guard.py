"""What every request must pass before a page sees it, and the headers of every answer.

In this order: the Host header names this server (against DNS rebinding), the address has requests
left, the method and the body's size are allowed, somebody is signed in, and a request that changes
something comes from this server's own page and carries its session's token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mamfed_common.web.limits import Buckets
from mamfed_common.web.sessions import Sessions

SIGN_IN, ASSETS = "/sign-in", "/assets/"
METHODS = ("GET", "HEAD", "POST")
FORM_BYTES = 2**18
"""Maximum size of a form: a pasted request has a few kB."""
MOST_FIELDS = 100
BURST, PER_SECOND = 120.0, 20.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Rules:
    """What the guard of one server checks by.

    Attributes:
        hosts: Names and addresses under which browsers reach it, without ports; ``*.example.org``
            stands for one label.
        scheme: ``http`` or ``https``.
        cookie: Name of the session's cookie.
    """

    hosts: Collection[str]
    scheme: str
    cookie: str


class Guard:
    """An ASGI application around another one that lets only good requests in."""

    def __init__(
        self, app: ASGIApp, rules: Rules, sessions: Sessions, buckets: Buckets | None = None
    ) -> None:
        """Guard an application."""
        self._app, self._rules, self._sessions = app, rules, sessions
        self._buckets = buckets or Buckets(BURST, PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # such as a WebSocket, which no page uses
            return
        request, send = Request(scope, receive), _with_headers(send)
        refusal = self._refusal(request)
        if refusal is None and request.method == "POST":
            body = await _body(receive)
            refusal = self._refused_post(request, body)
            receive = _replay(body or b"", receive)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        if not self._is_our_host(request.headers.get("host", "")):
            return _refuse(421, "this server is not known by that name; open its printed address")
        wait = self._buckets.take(request.client.host if request.client else "")
        if wait:
            return _refuse(429, "too many requests", {"retry-after": str(int(wait) + 1)})
        if request.method not in METHODS:
            return _refuse(405, "method not allowed", {"allow": ", ".join(METHODS)})
        if _declared_bytes(request) > FORM_BYTES:
            return _refuse(413, "the form is too large")
        request.state.session = self._sessions.get(request.cookies.get(self._rules.cookie, ""))
        is_open = request.url.path == SIGN_IN or request.url.path.startswith(ASSETS)
        if request.state.session is None and not is_open:
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(SIGN_IN, 303)
            return _refuse(401, "not signed in; open the printed address")
        return None

    def _refused_post(self, request: Request, body: bytes | None) -> Response | None:
        """Refuse a request that another site may have made this browser send."""
        if body is None:
            return _refuse(413, "the form is too large")
        if not self._is_from_our_page(request.headers):
            return _refuse(403, "the request does not come from this server's own page")
        if request.state.session is None:  # signing in
            return None
        given = request.headers.get("x-csrf-token") or fields_of(body).get("csrf", "")
        if not hmac.compare_digest(given.encode(), request.state.session.csrf.encode()):
            return _refuse(403, "the page is out of date; go back, reload it and try again")
        return None

    def _is_our_host(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname if _is_plain(host) else None
        if not name:
            return False
        _, _, parent = name.partition(".")
        return name in self._rules.hosts or (bool(parent) and f"*.{parent}" in self._rules.hosts)

    def _is_from_our_page(self, headers: Mapping[str, str]) -> bool:
        """Check the origin; no-referrer makes browsers send ``null`` and say it in Sec-Fetch."""
        origin = headers.get("origin", "null")
        if origin == "null":
            return headers.get("sec-fetch-site") == "same-origin"
        return origin == f"{self._rules.scheme}://{headers.get('host', '')}"


def fields_of(body: bytes) -> dict[str, str]:
    """Return the fields of a form (``application/x-www-form-urlencoded``); the first of each."""
    try:
        parsed = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in parsed.items()}


def _is_plain(host: str) -> bool:
    return bool(host) and len(host) < 300 and not set(host) & set("/?#@\\ ")


def _refuse(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(words + "\n", status, headers)


def _declared_bytes(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 16 else FORM_BYTES + 1


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None: it is larger than a form, or cut off."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > FORM_BYTES:
            return None
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message.get("headers", ())}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return send_with_headers
