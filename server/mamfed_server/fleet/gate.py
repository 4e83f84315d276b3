"""Accept connections, within their limits and deadlines, and begin TLS on them.

uvicorn would leave this to asyncio, which accepts without limit and allows a minute for each TLS
handshake, before any of uvicorn's code runs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from mamfed_common.runtime.files import refusal_words
from mamfed_server.fleet.connections import Connection, Connections

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS, CLOSING_SECONDS = 10.0, 5.0
BACKLOG, BURST = 256, 64
RETRY_SECONDS, LOOK_SECONDS = 0.5, 0.5

Protocols = Callable[[Connection], asyncio.Protocol]


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def listening_socket(address: Address) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.create_server(address, family=family, backlog=BACKLOG)
    listening.setblocking(False)
    return listening


class Gate:
    """Accepts the connections of one listening socket, in an event loop."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        protocols: Protocols,
        look: Callable[[], None],
    ) -> None:
        """Prepare to accept.

        Args:
            listening: The socket.
            context: TLS of the connections.
            connections: Limits their number.
            protocols: Returns the protocol of a connection, to be used once TLS is set up.
            look: Called twice a second, to close connections whose time is over.
        """
        self._listening, self._context = listening, context
        self._connections, self._protocols, self._look = connections, protocols, look
        self._loop = asyncio.get_running_loop()
        self._greetings: set[asyncio.Task[None]] = set()
        self._turned_away = 0
        self._is_open = False

    def open(self) -> None:
        """Begin to accept."""
        self._is_open = True
        self._loop.add_reader(self._listening, self._accept)
        self._tick()

    def close(self) -> None:
        """Stop accepting, and break off the handshakes under way."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listening)
            for greeting in self._greetings:
                greeting.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Wait for the handshakes that were broken off."""
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                raw, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: it will pass
                logger.warning("cannot accept connections now: %s", refusal_words(error))
                self._loop.remove_reader(self._listening)
                self._loop.call_later(RETRY_SECONDS, self._resume)
                return
            self._begin(raw, str(peer[0]))

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._listening, self._accept)

    def _begin(self, raw: socket.socket, host: str) -> None:
        raw.setblocking(False)
        greeting: asyncio.Task[None] | None = None

        def close() -> None:
            if greeting is not None:
                greeting.cancel()

        connection = self._connections.accept(host, close)
        greeting = self._loop.create_task(self._greet(raw, connection))
        self._greetings.add(greeting)

        def ended(task: asyncio.Task[None]) -> None:
            self._greetings.discard(task)
            if task.cancelled() or task.exception() is not None:
                self._connections.closed(connection)
                raw.close()

        greeting.add_done_callback(ended)

    async def _greet(self, raw: socket.socket, connection: Connection) -> None:
        """Begin TLS; from then on, the connection's protocol is in charge of it.

        TLS allocates 0.3 MB; a connection that sends nothing does not get so far.

        Raises:
            OSError: There was no TLS within its time (a TimeoutError is one).
        """
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await self._first_byte(raw)
        await self._loop.connect_accepted_socket(
            lambda: self._protocols(connection),
            raw,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=CLOSING_SECONDS,
        )

    async def _first_byte(self, raw: socket.socket) -> None:
        """Wait until there is something to read.

        Raises:
            OSError: The other side has hung up.
        """
        readable = asyncio.Event()
        self._loop.add_reader(raw, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(raw)
        if not raw.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError

    def _tick(self) -> None:
        if not self._is_open:
            return
        self._look()
        new, self._turned_away = (
            self._connections.turned_away - self._turned_away,
            self._connections.turned_away,
        )
        if new:
            logger.warning("connections beyond the limits: %d closed, %d open", new,
                           len(self._connections))  # fmt: skip
        self._loop.call_later(LOOK_SECONDS, self._tick)
