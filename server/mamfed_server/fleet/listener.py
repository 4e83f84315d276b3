"""The coordinator's only listener: TLS 1.3 with client certificates, before the request guard."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_common.security.certificates import pair_reason
from mamfed_server.fleet.request_guard import PEER, App, Limits, Receive, Scope, Send

logger = logging.getLogger(__name__)

FIRST_REQUEST_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75
MAX_CONNECTIONS = 1000
SHUTDOWN_SECONDS = 1
"""Limit for closing TLS, which waits for the peer's close_notify; an idle site sends none."""
FLOWER_HEADER = "x-flower-version"


class TlsListener:
    """The listener, which runs in its own thread."""

    def __init__(
        self,
        guard: App,
        host: str,
        port: int,
        ca: Path,
        certificate: Path,
        key: Path,
        limits: Limits,
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
        """
        self._certificate, self._key = certificate, key
        self._stamp = _stamp(certificate, key)
        self._context = _tls(ca, certificate, key)
        self._server = uvicorn.Server(_config(guard, host, port, self._context, limits))
        self._thread = threading.Thread(target=self._serve, daemon=True, name="front")

    def start(self) -> int:
        """Start listening; return the port.

        Raises:
            LinkError: The address cannot be bound.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                config = self._server.config
                raise LinkError(
                    f"cannot listen on {config.host}:{config.port}; is another server running?"
                )
            self._thread.join(0.02)
        (server, *_) = self._server.servers
        port: int = server.sockets[0].getsockname()[1]
        return port

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

    def _serve(self) -> None:
        with suppress(SystemExit):  # raised by uvicorn if the address is in use
            self._server.run()

    def stop(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join(10)


def _tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


def _config(
    guard: App, host: str, port: int, context: ssl.SSLContext, limits: Limits
) -> uvicorn.Config:
    return uvicorn.Config(
        guard,
        host=host,
        port=port,
        http=_protocol(limits),
        ssl_context_factory=lambda _config, _default: context,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        headers=[(MAMFED_HEADER, __version__), (FLOWER_HEADER, flower_version())],
    )


def _stamp(*paths: Path) -> tuple[tuple[int, int], ...]:
    return tuple((p.stat().st_mtime_ns, p.stat().st_size) for p in paths)


def _protocol(limits: Limits) -> type[H11Protocol]:
    """Return a protocol that limits connections per address and passes on the certificate."""
    open_by_address: Counter[str] = Counter()

    class PeerProtocol(H11Protocol):
        counted: str | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            address = self.client[0] if self.client else "?"
            self.counted = address
            open_by_address[address] += 1
            if open_by_address[address] > limits.connections_per_address:
                logger.warning(
                    "too many connections from one address: %d", open_by_address[address]
                )
                transport.close()
                return
            self.app = _with_peer(self.app, _certificate_of(transport))
            # A connection without a request would stay open forever.
            self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_unused)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.counted is not None:
                open_by_address[self.counted] -= 1
                if not open_by_address[self.counted]:
                    del open_by_address[self.counted]
                self.counted = None
            super().connection_lost(exc)

        def _close_if_unused(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return PeerProtocol


def _certificate_of(transport: asyncio.Transport) -> bytes | None:
    tls = transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)


def _with_peer(app: Any, certificate: bytes | None) -> App:
    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, PEER: certificate}, receive, send)

    return with_peer
