"""What stands before Flower's Fleet API, request by request.

What reaches Flower has passed, in this order: a certificate of this federation's CA (TLS,
``listener.py``); a path that sites need; the versions that a federation shares; the registry
(known, not revoked, and the certificate's node key is the one that signs Flower's requests); a
body of limited size, in limited time; and, where a message is pushed, its own sender. Everything
else gets one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import (
    INSTANCE_HEADER,
    MAMFED_HEADER,
    flower_version,
    same_minor,
)
from mamfed_common.runtime.wording import span
from mamfed_server.fleet.superlink import (
    ACTIVATE_NODE,
    FLEET,
    KEY_HEADER,
    PUSH_MESSAGES,
    PUSH_OBJECT,
    VERSION_HEADER,
    SuperLink,
    check_sender,
    key_of,
)
from mamfed_server.run.closing_message import ClosingMessage

logger = logging.getLogger(__name__)

HEALTH = "/health"
PEER = "mamfed.peer"
"""Where the listener puts the client's certificate (DER) in a request's scope."""
COLLECT_BYTES = 32 * 2**20
"""Bodies after which Python's collector runs. What answers a request leaves it and its answer in
reference cycles (Flower 1.41-1.42): ten sites' were seen to hold 1 GB until the collector ran."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Limits(NamedTuple):
    """What one request, one address and one answer may take.

    Attributes:
        body_bytes: Largest body; Flower's parts are 5 MiB.
        body_seconds: How long a body may take to come.
        connections_per_address: Connections open at once from one address.
        answer_bytes: All parts of one answer together.
    """

    body_bytes: int = 8 * 2**20
    body_seconds: float = 60.0
    connections_per_address: int = 64
    answer_bytes: int = 4 * 2**30


class KnownSites(Protocol):
    """Who belongs to the federation (``sites.Registry``)."""

    def check(self, certificate_der: bytes, node_public_key_der_sha256: str | None) -> Any:
        """Return the site's entry.

        Raises:
            LinkError: It does not belong to it, or no longer.
        """


class RequestDenied(Exception):
    """A request that does not reach Flower."""

    def __init__(self, status: int, detail: str) -> None:
        """Answer with an HTTP status and a line of text."""
        super().__init__(detail)
        self.status = status
        self.detail = detail


class RequestGuard:
    """ASGI middleware: lets through what a site needs, from sites that are known."""

    def __init__(
        self,
        link: SuperLink,
        known: KnownSites,
        limits: Limits,
        on_contact: Callable[[str, bytes, str], None],
        news: ClosingMessage | None = None,
    ) -> None:
        """Guard a link.

        Args:
            link: What is guarded.
            known: Who may come in.
            limits: What they may take.
            on_contact: Called whenever a site was let in with its name, the number of its process
                (``versions.INSTANCE_HEADER``, unchecked) and its address.
            news: What each answer tells of the run; None: nothing.
        """
        self._link = link
        self._known = known
        self._limits = limits
        self._on_contact = on_contact
        self._news = news
        self._sent: Counter[str] = Counter()
        self._uncollected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return
        try:
            body, site = await self._admit(scope, receive)
        except RequestDenied as denied:
            logger.info("%s %s: %s", denied.status, scope["path"], denied.detail)
            await _answer(send, denied)
            return
        self._uncollected += len(body)

        sent = self._news.on_answer(site) if self._news and site else None

        async def count(event: MutableMapping[str, Any]) -> None:
            self._uncollected += len(event.get("body", b""))
            if self._news and event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), self._news.header()]
            await send(event)

        await self._link.app(scope, _replay(body, receive), count)
        if sent:
            sent()
        self._collect()

    async def _admit(self, scope: Scope, receive: Receive) -> tuple[bytes, str]:
        """Return a request's body, and whose it is; empty for a look at the health."""
        path, headers = str(scope["path"]), {k.decode().lower(): v for k, v in scope["headers"]}
        if not _is_offered(path, scope["method"]):
            raise RequestDenied(404, "there is no such thing here")
        peer: bytes | None = scope.get(PEER)
        if peer is None:
            raise RequestDenied(403, "no client certificate was shown")
        if path == HEALTH:
            await self._who(peer, None)
            return b"", ""
        _check_versions(headers)
        key = _key(headers)
        site = await self._who(peer, _fingerprint(key))
        body = await self._body(headers, receive)
        if path == PUSH_MESSAGES:
            _check_sender(body)
        self._count(path, site, len(body))
        if path == ACTIVATE_NODE:
            self._link.welcome_back(self._link.node_of(key))
        address = (scope.get("client") or ("unknown",))[0]
        self._on_contact(site, headers.get(INSTANCE_HEADER, b""), str(address))
        return body, site

    def _collect(self) -> None:
        if self._uncollected >= COLLECT_BYTES:
            self._uncollected = 0
            gc.collect()

    async def _who(self, peer: bytes, node: str | None) -> str:
        try:
            entry = await asyncio.to_thread(self._known.check, peer, node)
        except LinkError as error:
            raise RequestDenied(403, str(error)) from None
        return str(entry.site)

    async def _body(self, headers: dict[str, bytes], receive: Receive) -> bytes:
        """Read the whole body, no more than allowed and no slower."""
        length = headers.get("content-length", b"0")
        too_large = RequestDenied(413, f"a body may have {self._limits.body_bytes} bytes")
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise RequestDenied(400, "the body never came")
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > self._limits.body_bytes:
                        raise too_large
        except TimeoutError:
            raise RequestDenied(
                408, f"the body took over {span(self._limits.body_seconds)}"
            ) from None
        return bytes(body)

    def _count(self, path: str, site: str, length: int) -> None:
        """Refuse parts of an answer beyond what any answer can be."""
        if path == PUSH_MESSAGES:
            self._sent[site] = 0
        if path == PUSH_OBJECT:
            self._sent[site] += length
            if self._sent[site] > self._limits.answer_bytes:
                raise RequestDenied(413, "the answer is larger than any answer can be")


def _is_offered(path: str, method: str) -> bool:
    return (path.startswith(FLEET) and method == "POST") or (path == HEALTH and method == "GET")


def _check_versions(headers: dict[str, bytes]) -> None:
    theirs = headers.get(MAMFED_HEADER, b"").decode("latin-1")
    if not same_minor(theirs):
        raise RequestDenied(
            426, f"found mamfed {theirs[:20]!r}, expected {__version__}: same minor version"
        )
    flower = headers.get(VERSION_HEADER, b"").decode("latin-1")
    if not same_minor(flower, flower_version()):
        raise RequestDenied(426, _other("Flower", flower, flower_version()))


def _other(what: str, found: str, expected: str) -> str:
    return f"found {what} {found[:20]!r}, expected {expected}: a federation shares major and minor"


def _key(headers: dict[str, bytes]) -> bytes:
    try:
        return key_of(headers.get(KEY_HEADER, b""))
    except LinkError as error:
        raise RequestDenied(403, str(error)) from None


def _check_sender(body: bytes) -> None:
    try:
        check_sender(body)
    except LinkError as error:
        raise RequestDenied(400, str(error)) from None


def _fingerprint(key: bytes) -> str:
    public = load_pem_public_key(key)
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, once; then what comes."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> MutableMapping[str, Any]:
        return events.pop() if events else await receive()

    return replay


async def _answer(send: Send, denied: RequestDenied) -> None:
    body = json.dumps({"detail": denied.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
