"""Check every request before it reaches Flower's Fleet API.

The checks, in this order: a certificate of this federation's CA (TLS, ``listener.py``); a path that
sites need, exactly, with each header once (``canonical.py``); compatible versions; the registry
(the site is known and not revoked, and the certificate's node key is the one that signs Flower's
requests); a body within the size and time limits. Flower then checks the signature, and
``node_rules.py`` what the node may do; only then is anything recorded about the site. Every other
request is answered with one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import (
    AUDIT_HEAD_HEADER,
    INSTANCE_HEADER,
    LEASE_HEADER,
    LEASE_SECONDS,
    MAMFED_HEADER,
    WAIT_HEADER,
    flower_version,
    same_minor,
)
from mamfed_common.runtime.wording import span
from mamfed_server.fleet.canonical import HEALTH, POLL, CanonicalRequest, read_request
from mamfed_server.fleet.countersigning import Countersigner
from mamfed_server.fleet.denial import App, Receive, RequestDenied, Scope, Send, send_denial
from mamfed_server.fleet.fleet_requests import KEY_HEADER, VERSION_HEADER, fingerprint_of
from mamfed_server.fleet.held_polls import HELD_SECONDS, Caller, hung_up, refused_at_stop
from mamfed_server.fleet.node_rules import CALLER, VERIFIED, NodeRules
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.closing_message import ClosingMessage

__all__ = ["PEER", "App", "KnownSites", "Limits", "Receive", "RequestGuard", "Scope", "Send"]

logger = logging.getLogger(__name__)

PEER = "mamfed.peer"
"""Key of the client's certificate (DER) in a request's scope, set by the listener."""
OBJECTS_AT_ONCE = 2
"""Requests of one site at a time that carry objects; Flower's nodes make two. Others wait unread,
so that a site can fill little of the server's memory."""
COLLECT_BYTES = 32 * 2**20
"""Total body size after which Python's garbage collector runs. Flower 1.41-1.42 leaves requests and
responses in reference cycles: those of ten sites held 1 GB until the collector ran."""
VERSION_CHARACTERS, LENGTH_DIGITS, WAIT_DIGITS, TARGET_CHARACTERS = 20, 12, 4, 60


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
            OSError: The registry cannot be read now.
        """


OnContact = Callable[[str, bytes, str], None]


class RequestGuard:
    """ASGI middleware that passes on the requests that sites need, from known sites only."""

    def __init__(
        self,
        link: SuperLink,
        known: KnownSites,
        limits: Limits,
        on_contact: OnContact,
        closing: ClosingMessage | None = None,
        countersigner: Countersigner | None = None,
    ) -> None:
        """Guard a SuperLink, and put the rules for nodes into it.

        Args:
            link: The SuperLink.
            known: The sites that may send requests.
            limits: Limits of their requests.
            on_contact: Called for each request whose signature is right, with the site's name, the
                number of its process (``versions.INSTANCE_HEADER``, unchecked) and its address.
            closing: Adds the run's state to each response; None: nothing is added.
            countersigner: Signs the head of a site's audit log; None: none is signed.
        """
        self._app = link.app
        self._known = known
        self._limits = limits
        self._on_contact = on_contact
        self._closing = closing
        self._countersigner = countersigner
        self._places: dict[str, asyncio.Semaphore] = {}
        self._uncollected = 0
        link.check_nodes_with(NodeRules, link=link)
        if closing:
            closing.release_with(link.polls.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or deny it."""
        if scope["type"] != "http":
            return
        try:
            request = read_request(scope)
            site = await self._admit(request, scope.get(PEER))
            if request.route.carries_objects:
                place = self._places.setdefault(site, asyncio.Semaphore(OBJECTS_AT_ONCE))
                async with place:
                    await self._pass_on(request, site, scope, receive, send)
            else:
                await refused_at_stop(self._pass_on(request, site, scope, receive, send))
        except RequestDenied as denied:
            target = bytes(scope["raw_path"][:TARGET_CHARACTERS]).decode("ascii", "replace")
            logger.info("%s %s: %s", denied.status, target, denied.detail)
            await send_denial(send, denied)

    async def _admit(self, request: CanonicalRequest, peer: bytes | None) -> str:
        """Return the site that seems to send a request: its signature is not checked yet."""
        if peer is None:
            raise RequestDenied(403, "the request came without a client certificate")
        if request.route is HEALTH:
            return await self._site_of(peer, None)
        _check_versions(request)
        return await self._site_of(peer, _node(request))

    async def _site_of(self, peer: bytes, node: str | None) -> str:
        return await asyncio.to_thread(self._check, peer, node)

    def _check(self, peer: bytes, node: str | None) -> str:
        try:
            entry = self._known.check(peer, node)
        except LinkError as error:
            raise RequestDenied(403, str(error)) from None
        except OSError:  # a site that sees this code asks again
            raise RequestDenied(503, "the registry of sites cannot be read now") from None
        return str(entry.site)

    async def _pass_on(
        self, request: CanonicalRequest, site: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Read a request's body, and let Flower answer."""
        body = await self._body(request, receive)
        self._uncollected += len(body)
        sent: list[Callable[[], None]] = []
        verified: list[str] = []

        def on_verified() -> None:
            self._seen(request, site, scope)
            verified.append(site)

        def look() -> None:
            self._check(scope[PEER], None)
            self._seen(request, site, scope)

        async def send_counted(event: MutableMapping[str, Any]) -> None:
            self._uncollected += len(event.get("body", b""))
            if event["type"] == "http.response.start":
                told = await self._seal(request, verified)
                if verified and request.route is POLL:
                    told.append((LEASE_HEADER.encode(), b"%d" % LEASE_SECONDS))
                if self._closing:
                    sent.extend(self._closing.on_answer(site) for _ in verified)
                    told.append(self._closing.header())
                event["headers"] = [*event.get("headers", ()), *told]
            await send(event)

        handed_on = request.scope(scope, body)
        if request.route is not HEALTH:
            handed_on[VERIFIED] = on_verified
        if request.route is POLL:
            handed_on[CALLER] = Caller(
                _wait_seconds(request), gone=partial(hung_up, receive), look=look
            )
        await self._app(handed_on, _replay(body, receive), send_counted)
        for inform in sent:
            inform()
        self._collect_garbage()

    def _seen(self, request: CanonicalRequest, site: str, scope: Scope) -> None:
        """Record that a site is there."""
        address = (scope.get("client") or ("unknown",))[0]
        self._on_contact(site, request.header(INSTANCE_HEADER), str(address))
        if self._closing:
            self._closing.seen(site)

    async def _seal(
        self, request: CanonicalRequest, verified: list[str]
    ) -> list[tuple[bytes, bytes]]:
        """Return the signature over the head of a site's audit log, if its request names one."""
        head = request.header(AUDIT_HEAD_HEADER)
        if not (self._countersigner and verified and head):
            return []
        return await asyncio.to_thread(self._countersigner.headers, verified[0], head)

    def _collect_garbage(self) -> None:
        if self._uncollected >= COLLECT_BYTES:
            self._uncollected = 0
            gc.collect()

    async def _body(self, request: CanonicalRequest, receive: Receive) -> bytes:
        """Read the body within the size and time limits."""
        limit = self._limits.body_bytes
        if request.route.max_bytes is not None:
            limit = min(limit, request.route.max_bytes)
        length = request.header("content-length") or b"0"
        if not length.isdigit() or len(length) > LENGTH_DIGITS or int(length) > limit:
            raise RequestDenied(413, f"the body is too large: at most {limit} bytes are allowed")
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
        except TimeoutError:
            raise RequestDenied(
                408, f"the body took longer than {span(self._limits.body_seconds)}"
            ) from None
        if len(body) != int(length):  # h11 has counted them, too
            raise RequestDenied(400, "the body is not as long as its stated length")
        return bytes(body)


def _check_versions(request: CanonicalRequest) -> None:
    theirs = _version(request, MAMFED_HEADER)
    if not same_minor(theirs):
        raise RequestDenied(
            426, f"found mamfed {theirs!r}, expected the minor version of {__version__}"
        )
    flower = _version(request, VERSION_HEADER)
    if not same_minor(flower, flower_version()):
        raise RequestDenied(
            426, f"found Flower {flower!r}, expected the minor version of {flower_version()}"
        )


def _version(request: CanonicalRequest, header: str) -> str:
    return request.header(header)[:VERSION_CHARACTERS].decode("latin-1")


def _wait_seconds(request: CanonicalRequest) -> int:
    word, _, seconds = request.header(WAIT_HEADER).partition(b"=")
    if word != b"wait" or not seconds.isdigit() or len(seconds) > WAIT_DIGITS:
        return 0
    return min(int(seconds), HELD_SECONDS)


def _node(request: CanonicalRequest) -> str:
    try:
        return fingerprint_of(request.header(KEY_HEADER))
    except LinkError as error:
        raise RequestDenied(403, str(error)) from None


def _replay(body: bytes, receive: Receive) -> Receive:
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> MutableMapping[str, Any]:
        return events.pop() if events else await receive()

    return replay
