"""A proxy between sites and coordinator that ends TLS on both sides and records what it carries.

It holds the keys of all parties, as only a test does: to a site it is the coordinator, to the
coordinator the site whose certificate came.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mamfed_client.site.settings import SiteHome
from mamfed_server.settings import ServerHome

CHUNK = 1 << 16


@dataclass
class Recorded:
    """One connection in plain text: what the site sent, and what came back."""

    site: str
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Request:
    """One HTTP request of a site."""

    site: str
    path: str
    body: bytes


class RecordingProxy:
    """Listens on one port of 127.0.0.1 and connects to another."""

    def __init__(
        self, port: int, upstream: int, server: ServerHome, sites: Mapping[str, SiteHome]
    ) -> None:
        """Start it."""
        self._upstream = upstream
        self._server = server
        self._sites = {_der(home.certificate): (name, home) for name, home in sites.items()}
        self.connections: list[Recorded] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def requests(self) -> list[Request]:
        """Return all complete requests so far."""
        return [request for one in self.connections for request in _requests(one)]

    def close(self) -> None:
        """Stop it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._server.ca)
        context.load_cert_chain(self._server.server_certificate, self._server.server_key)
        start = asyncio.start_server(self._carry, "127.0.0.1", port, ssl=context)
        self._loop.run_until_complete(start)
        self._ready.set()
        self._loop.run_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        name, home = self._sites[peer]
        recorded = Recorded(name)
        self.connections.append(recorded)
        context = ssl.create_default_context(cafile=self._server.ca)
        context.load_cert_chain(home.certificate, home.tls_key)
        try:
            theirs = await asyncio.open_connection(
                "127.0.0.1", self._upstream, ssl=context, server_hostname="127.0.0.1"
            )
        except OSError:  # the coordinator has not started yet, or has ended
            writer.close()
            return
        await asyncio.gather(
            _copy(reader, theirs[1], recorded.up), _copy(theirs[0], writer, recorded.down)
        )


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
) -> None:
    try:
        while data := await reader.read(CHUNK):
            record += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def _requests(one: Recorded) -> list[Request]:
    """Split what a site sent on a connection into HTTP/1.1 requests."""
    found, rest = [], bytes(one.up)
    while b"\r\n\r\n" in rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        assert "transfer-encoding" not in headers, "a body of unknown length"
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            break
        found.append(Request(one.site, first.split(" ")[1], rest[:length]))
        rest = rest[length:]
    return found


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
