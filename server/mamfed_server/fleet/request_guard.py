"""Check every request before it reaches Flower's Fleet API.

The checks, in this order: a certificate of this federation's CA (TLS, ``listener.py``); a path that
sites need; compatible versions; the registry (the site is known and not revoked, and the
certificate's node key is the one that signs Flower's requests); a body within the size and time
limits; and, for a pushed message, its sender. Every other request is answered with one line of
JSON.
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
from mamfed_server.fleet.fleet_requests import (
    ACTIVATE_NODE,
    FLEET,
    KEY_HEADER,
    PUSH_MESSAGES,
    PUSH_OBJECT,
    VERSION_HEADER,
    check_sender,
    key_of,
)
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.closing_message import ClosingMessage

logger = logging.getLogger(__name__)

HEALTH = "/health"
PEER = "mamfed.peer"
"""Key of the client's certificate (DER) in a request's scope, set by the listener."""
COLLECT_BYTES = 32 * 2**20
"""Total body size after which Python's garbage collector runs. Flower 1.41-1.42 leaves requests and
responses in reference cycles: those of ten sites held 1 GB until the collector ran."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Limits(NamedTuple):
    """Limits of one request, one address and one answer.

    Attributes:
        body_bytes: Maximum size of a body; Flower sends parts of 5 MiB.
        body_seconds: Maximum time to receive a body.
        connections_per_address: Maximum number of open connections from one address.
        answer_bytes: Maximum total size of the parts of one answer.
    """

    body_bytes: int = 8 * 2**20
    body_seconds: float = 60.0
    connections_per_address: int = 64
    answer_bytes: int = 4 * 2**30


class KnownSites(Protocol):
    """The sites of the federation (``registry.Registry``)."""

    def check(self, certificate_der: bytes, node_public_key_der_sha256: str | None) -> Any:
        """Return the site's entry.

        Raises:
            LinkError: The site is unknown or revoked.
        """


class RequestDenied(Exception):
    """A request that is denied before it reaches Flower."""

    def __init__(self, status: int, detail: str) -> None:
        """Deny with an HTTP status and one line of text."""
        super().__init__(detail)
        self.status = status
        self.detail = detail


class RequestGuard:
    """ASGI middleware that passes on the requests that sites need, from known sites only."""

    def __init__(
        self,
        link: SuperLink,
        known: KnownSites,
        limits: Limits,
        on_contact: Callable[[str, bytes, str], None],
        closing: ClosingMessage | None = None,
    ) -> None:
        """Guard a SuperLink.

        Args:
            link: The SuperLink.
            known: The sites that may send requests.
            limits: Limits of their requests.
            on_contact: Called for each admitted request with the site's name, the number of its
                process (``versions.INSTANCE_HEADER``, unchecked) and its address.
            closing: Adds the run's state to each response; None: nothing is added.
        """
        self._link = link
        self._known = known
        self._limits = limits
        self._on_contact = on_contact
        self._closing = closing
        self._sent: Counter[str] = Counter()
        self._uncollected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or deny it."""
        if scope["type"] != "http":
            return
        try:
            body, site = await self._admit(scope, receive)
        except RequestDenied as denied:
            logger.info("%s %s: %s", denied.status, scope["path"], denied.detail)
            await _send_denial(send, denied)
            return
        self._uncollected += len(body)

        on_sent = self._closing.on_answer(site) if self._closing and site else None

        async def send_counted(event: MutableMapping[str, Any]) -> None:
            self._uncollected += len(event.get("body", b""))
            if self._closing and event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), self._closing.header()]
            await send(event)

        await self._link.app(scope, _replay(body, receive), send_counted)
        if on_sent:
            on_sent()
        self._collect_garbage()

    async def _admit(self, scope: Scope, receive: Receive) -> tuple[bytes, str]:
        """Return a request's body and its site; both are empty for a health check."""
        path, headers = str(scope["path"]), {k.decode().lower(): v for k, v in scope["headers"]}
        if not _is_offered(path, scope["method"]):
            raise RequestDenied(404, "no such path")
        peer: bytes | None = scope.get(PEER)
        if peer is None:
            raise RequestDenied(403, "the request came without a client certificate")
        if path == HEALTH:
            await self._site_of(peer, None)
            return b"", ""
        _check_versions(headers)
        key = _key(headers)
        site = await self._site_of(peer, _fingerprint(key))
        body = await self._body(headers, receive)
        if path == PUSH_MESSAGES:
            _check_sender(body)
        self._count(path, site, len(body))
        if path == ACTIVATE_NODE:
            self._link.welcome_back(self._link.node_of(key))
        address = (scope.get("client") or ("unknown",))[0]
        self._on_contact(site, headers.get(INSTANCE_HEADER, b""), str(address))
        return body, site

    def _collect_garbage(self) -> None:
        if self._uncollected >= COLLECT_BYTES:
            self._uncollected = 0
            gc.collect()

    async def _site_of(self, peer: bytes, node: str | None) -> str:
        try:
            entry = await asyncio.to_thread(self._known.check, peer, node)
        except LinkError as error:
            raise RequestDenied(403, str(error)) from None
        return str(entry.site)

    async def _body(self, headers: dict[str, bytes], receive: Receive) -> bytes:
        """Read the body within the size and time limits."""
        length = headers.get("content-length", b"0")
        too_large = RequestDenied(
            413, f"the body is too large: at most {self._limits.body_bytes} bytes are allowed"
        )
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise RequestDenied(400, "the client disconnected before sending its body")
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > self._limits.body_bytes:
                        raise too_large
        except TimeoutError:
            raise RequestDenied(
                408, f"the body took longer than {span(self._limits.body_seconds)}"
            ) from None
        return bytes(body)

    def _count(self, path: str, site: str, length: int) -> None:
        """Deny further parts of an answer once it is larger than any valid answer."""
        if path == PUSH_MESSAGES:
            self._sent[site] = 0
        if path == PUSH_OBJECT:
            self._sent[site] += length
            if self._sent[site] > self._limits.answer_bytes:
                raise RequestDenied(413, "the answer is larger than any valid answer")


def _is_offered(path: str, method: str) -> bool:
    return (path.startswith(FLEET) and method == "POST") or (path == HEALTH and method == "GET")


def _check_versions(headers: dict[str, bytes]) -> None:
    theirs = headers.get(MAMFED_HEADER, b"").decode("latin-1")
    if not same_minor(theirs):
        raise RequestDenied(
            426, f"found mamfed {theirs[:20]!r}, expected the minor version of {__version__}"
        )
    flower = headers.get(VERSION_HEADER, b"").decode("latin-1")
    if not same_minor(flower, flower_version()):
        raise RequestDenied(
            426, f"found Flower {flower[:20]!r}, expected the minor version of {flower_version()}"
        )


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
    """Return a ``receive`` that first yields a body already read, then the remaining events."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> MutableMapping[str, Any]:
        return events.pop() if events else await receive()

    return replay


async def _send_denial(send: Send, denied: RequestDenied) -> None:
    body = json.dumps({"detail": denied.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
