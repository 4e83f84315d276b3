"""The coordinator's only listener: TLS 1.3 with client certificates, before the request guard."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_common.security.certificates import pair_reason
from mamfed_server.admission.registry import site_in
from mamfed_server.fleet.connections import Connection, Connections, room_for_connections
from mamfed_server.fleet.gate import Address, Gate, Protocols, listening_socket
from mamfed_server.fleet.request_guard import PEER, App, KnownSites, Limits, Receive, Scope, Send

logger = logging.getLogger(__name__)

FIRST_REQUEST_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75.0
"""A connection without a complete head of a request for this time is closed, whatever it sends."""
STALLED_SECONDS = 60.0
"""A connection whose peer has read nothing of its answer for this time is closed."""
REQUEST_SECONDS = 900.0
"""Time limit for one request and its answer."""
REFUSED_SECONDS = 4.0
"""How long an idle connection of a site that is not admitted stays, so that it can read why."""
SHUTDOWN_SECONDS = 1
"""Limit for closing TLS, which waits for the peer's close_notify; an idle site sends none."""
FLOWER_HEADER = "x-flower-version"


class TlsListener:
    """The listener, which runs in its own thread.

    Attributes:
        open_connections: Its connections, once it has started.
    """

    open_connections: Connections

    def __init__(
        self,
        guard: App,
        host: str,
        port: int,
        ca: Path,
        certificate: Path,
        key: Path,
        limits: Limits,
        known: KnownSites | None = None,
    ) -> None:
        """Prepare to listen.

        Args:
            guard: The ASGI app that handles the requests.
            host: Address to bind.
            port: Port to bind; 0 chooses a free one.
            ca: The federation's CA certificate, PEM.
            certificate: The server's certificate, PEM. :meth:`reload` loads a renewed one.
            key: Its private key, PEM.
            limits: Limits of the connections.
            known: The sites that may hold connections; None: all with a certificate of the CA.
        """
        self._certificate, self._key = certificate, key
        self._stamp = _stamp(certificate, key)
        self._context = _tls(ca, certificate, key)
        self._address, self._limits, self._known = Address(host, port), limits, known
        self._config = uvicorn.Config(
            guard,
            http=_PeerProtocol,
            loop="asyncio",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=int(REQUEST_SECONDS),  # KEEP_ALIVE_SECONDS is shorter
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            headers=[(MAMFED_HEADER, __version__), (FLOWER_HEADER, flower_version())],
        )
        self._server: _Server | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True, name="front")

    def start(self) -> int:
        """Start listening; return the port.

        Raises:
            LinkError: The address cannot be bound, or the limit of open files is too low.
        """
        room = room_for_connections()
        try:
            listening = listening_socket(self._address)
        except OSError:
            host, port = self._address
            raise LinkError(f"cannot listen on {host}:{port}; is another server running?") from None
        self.open_connections = Connections(room, self._limits.connections_per_address)
        self._server = _Server(
            self._config, listening, self._context, self.open_connections, self._admits
        )
        port = listening.getsockname()[1]
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.02)
        logger.info("room for %d connections", room)
        return int(port)

    def reload(self) -> bool:
        """Load the server certificate if its files have changed; return whether they had.

        Raises:
            LinkError: The new files cannot be used; connections keep the old certificate.
        """
        stamp = _stamp(self._certificate, self._key)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            reason = pair_reason(self._certificate, error)
            raise LinkError(f"{self._certificate}: cannot be used: {reason}") from None
        return True

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(10)

    def _serve(self) -> None:
        assert self._server is not None
        self._server.run()

    def _admits(self, certificate: bytes) -> bool:
        """Return whether the site of a certificate may hold a connection."""
        try:
            if self._known is not None:
                self._known.check(certificate, None)
        except LinkError:
            return False
        except OSError:  # its requests are answered with "later"
            pass
        return True


class _Server(uvicorn.Server):
    """uvicorn, which gets its connections from a gate of ours (``gate.py``)."""

    def __init__(
        self,
        config: uvicorn.Config,
        listening: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        admits: Callable[[bytes], bool],
    ) -> None:
        super().__init__(config)
        self._listening, self._context = listening, context
        self._open, self._admits = connections, admits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen (in place of uvicorn's own way)."""
        await self.lifespan.startup()
        gate = Gate(self._listening, self._context, self._open, self._protocols(), self._look)
        self.servers: list[Any] = [gate]
        gate.open()
        self.started = True

    def _protocols(self) -> Protocols:
        loop = asyncio.get_running_loop()

        def protocol(connection: Connection) -> asyncio.Protocol:
            made = _PeerProtocol(self.config, self.server_state, self.lifespan.state, loop)
            made.attend(connection, self._open)
            return made

        return protocol

    def _look(self) -> None:
        now, admitted = monotonic(), cache(self._admits)
        for protocol in list(self.server_state.connections):
            assert isinstance(protocol, _PeerProtocol)
            protocol.close_if_overdue(now, admitted)


class _PeerProtocol(H11Protocol):
    """HTTP on one connection: passes on the certificate, and keeps to deadlines."""

    connection: Connection
    all_open: Connections
    certificate: bytes = b""
    _cycle_seen: Any = None
    _cycle_since: float = 0.0
    _unsent: int = 0
    _unsent_since: float = 0.0

    def attend(self, connection: Connection, connections: Connections) -> None:
        """Take charge of a connection."""
        self.connection, self.all_open = connection, connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.certificate = (tls.getpeercert(binary_form=True) if tls else None) or b""
        self.app = _with_peer(self.app, self.certificate or None)
        self.connection.close = transport.abort
        self.connection.is_idle = self._is_idle
        self.connection.since = monotonic()
        self.all_open.identify(self.connection, _holder(self.certificate))

    def connection_lost(self, exc: Exception | None) -> None:
        self.all_open.closed(self.connection)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.connection.since = monotonic()
        super().on_response_complete()

    def close_if_overdue(self, now: float, admits: Callable[[bytes], bool]) -> None:
        """Close the connection if its peer is too slow, or is a site that is not admitted."""
        if self.transport.is_closing():
            return
        idle_seconds = now - self.connection.since if self._is_idle() else 0.0
        if self._is_overdue(now):
            self.transport.abort()
        elif idle_seconds > REFUSED_SECONDS and not admits(self.certificate):
            self.transport.close()

    def _is_overdue(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            if now - self._unsent_since > STALLED_SECONDS:
                return True
        else:
            self._unsent, self._unsent_since = unsent, now
        if self.cycle is not self._cycle_seen:
            self._cycle_seen, self._cycle_since = self.cycle, now
        if self.cycle is not None and (unsent or not self.cycle.response_complete):
            return now - self._cycle_since > REQUEST_SECONDS
        limit = FIRST_REQUEST_SECONDS if self.cycle is None else KEEP_ALIVE_SECONDS
        return now - self.connection.since > limit

    def _is_idle(self) -> bool:
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.transport.get_write_buffer_size()


def _holder(certificate: bytes) -> str:
    """Return who holds a connection: the site of its certificate, or ``no site``."""
    try:
        return site_in(certificate)
    except LinkError:
        return "no site"


def _tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would not show its certificate again
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


def _stamp(*paths: Path) -> tuple[tuple[int, int], ...]:
    return tuple((p.stat().st_mtime_ns, p.stat().st_size) for p in paths)


def _with_peer(app: Any, certificate: bytes | None) -> App:
    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, PEER: certificate}, receive, send)

    return with_peer
