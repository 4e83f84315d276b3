"""Read a request once, and hand one canonical form of it to Flower.

Two programs that read the same bytes may understand them differently: the first of two equal
headers or the last, a path before or after decoding. Only exact paths are therefore served, every
header may come once, and Flower gets a scope made of what was understood here, never what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mamfed_server.fleet.denial import RequestDenied, Scope
from mamfed_server.fleet.fleet_requests import KEY_HEADER
from mamfed_server.fleet.flower_compat import (
    FLEET_HTTP_SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    RuntimeVersionMetadata,
)

SMALL_BYTES, REPLY_BYTES = 2**16, 2**20
MOST_HEADERS, MOST_HEADER_BYTES = 40, 2**14
"""A node sends 12 headers of 2 kB; h11 itself limits only a head that comes in pieces."""


class Route(NamedTuple):
    """One path that sites need.

    Attributes:
        path: The path, of ASCII letters, digits, ``/`` and ``-``.
        method: Its method.
        max_bytes: Maximum size of a body; None: that of the limits.
        carries_objects: Whether its request or its answer carries parts of a model.
    """

    path: str
    method: str = "POST"
    max_bytes: int | None = SMALL_BYTES
    carries_objects: bool = False


HEALTH = Route("/health", "GET", 0)
POLL = Route("/v1/fleet/pull-messages")
ROUTES = (
    HEALTH,
    Route("/v1/fleet/activate-node"),
    Route("/v1/fleet/deactivate-node"),
    Route("/v1/fleet/send-node-heartbeat"),
    POLL,
    Route("/v1/fleet/push-messages", max_bytes=REPLY_BYTES),
    Route("/v1/fleet/get-run"),
    Route("/v1/fleet/get-fab"),
    Route("/v1/fleet/push-object", max_bytes=None, carries_objects=True),
    Route("/v1/fleet/pull-object", carries_objects=True),
    Route("/v1/fleet/confirm-message-received"),
)
"""All that is served. Flower's register-node and unregister-node are not: the registry decides."""
_BY_TARGET: Mapping[tuple[str, bytes], Route] = {(r.method, r.path.encode()): r for r in ROUTES}

PASSED_ON = frozenset(
    {
        b"content-type",
        KEY_HEADER.encode(),
        FLEET_HTTP_SIGNATURE_HEADER.lower().encode(),
        TIMESTAMP_HEADER.lower().encode(),
        *(
            name.lower().encode()
            for name, _ in RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()
        ),
    }
)
"""The headers that Flower reads."""


class CanonicalRequest(NamedTuple):
    """A request as it was understood.

    Attributes:
        route: Its route.
        headers: Its headers by name in lower case.
    """

    route: Route
    headers: Mapping[bytes, bytes]

    def header(self, name: str) -> bytes:
        """Return a header's value, empty if it is missing."""
        return self.headers.get(name.encode(), b"")

    def scope(self, scope: Scope, body: bytes) -> Scope:
        """Return the scope to hand on, with nothing in it that was not understood."""
        headers = [(name, value) for name, value in self.headers.items() if name in PASSED_ON]
        return {
            "type": "http",
            "asgi": scope["asgi"],
            "http_version": "1.1",
            "scheme": "https",
            "server": scope.get("server"),
            "client": scope.get("client"),
            "method": self.route.method,
            "root_path": "",
            "path": self.route.path,
            "raw_path": self.route.path.encode(),
            "query_string": b"",
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
            "state": {},
        }


def read_request(scope: Scope) -> CanonicalRequest:
    """Read a request.

    Raises:
        RequestDenied: It is not exactly one of the routes, or it can be understood in two ways.
    """
    route = _BY_TARGET.get((scope["method"], bytes(scope["raw_path"])))
    if route is None or scope["query_string"]:
        raise RequestDenied(404, "no such path")
    sent = scope["headers"]
    if len(sent) > MOST_HEADERS or sum(len(n) + len(v) for n, v in sent) > MOST_HEADER_BYTES:
        raise RequestDenied(431, "the headers are larger than any that a site sends")
    headers: dict[bytes, bytes] = {}
    for name, value in sent:
        if name.lower() in headers:
            raise RequestDenied(400, "a header came twice")
        headers[name.lower()] = value
    if b"transfer-encoding" in headers:
        raise RequestDenied(411, "found a transfer encoding, expected the header content-length")
    return CanonicalRequest(route, headers)
