"""A client of the coordinator's port that sends whatever it is told, byte for byte."""

from __future__ import annotations

import http.client
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)
from tests.unit.server.certificates import public_pem

from mamfed_common import __version__
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version

Headers = list[tuple[str, str]]
KEY, SIGNATURE = FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
PROTOBUF = "application/protobuf"


class Credentials(NamedTuple):
    """What makes a site: its certificate with its key, and its node's key."""

    name: str
    certificate: Path | None
    key: Path | None
    node: Any

    def with_node(self, other: Credentials) -> Credentials:
        """Return these credentials with another site's node key."""
        return self._replace(node=other.node)


class Answer(NamedTuple):
    """What came back; status 0 is a connection that was closed without an answer."""

    status: int
    body: bytes


def key_header(node: Any) -> str:
    """Return the value of Flower's header with a node's public key."""
    return b64encode(public_pem(node)).decode()


def signed(node: Any, *, age_seconds: float = 0.0) -> Headers:
    """Return the headers of a request that a node signs."""
    stamp = (datetime.now(UTC) - timedelta(seconds=age_seconds)).isoformat()
    signature = node.sign(stamp.encode(), ec.ECDSA(SHA256()))
    return [
        ("host", "coordinator"),
        ("content-type", PROTOBUF),
        (KEY, key_header(node)),
        (TIMESTAMP_HEADER, stamp),
        (SIGNATURE, b64encode(signature).decode()),
        (MAMFED_HEADER, __version__),
        (FLWR_PACKAGE_VERSION_METADATA_KEY, flower_version()),
    ]


def replaced(headers: Headers, name: str, value: str) -> Headers:
    """Return headers with one value replaced."""
    return [(n, value if n == name else v) for n, v in headers]


def request_bytes(
    target: str, headers: Iterable[tuple[str, str]], body: bytes = b"", method: str = "POST"
) -> bytes:
    """Return a request with a length, if no header says anything of the body."""
    headers = list(headers)
    if method == "POST" and not {"content-length", "transfer-encoding"} & {
        name.lower() for name, _ in headers
    }:
        headers.append(("content-length", str(len(body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


class Door:
    """The coordinator's port."""

    def __init__(self, port: int, ca: Path) -> None:
        """Refer to a port of 127.0.0.1; ``ca`` is the authority's certificate."""
        self.port, self.ca = port, ca

    def tcp(self, source: str = "127.0.0.1", timeout: float = 20) -> socket.socket:
        """Open a connection from an address of this machine."""
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=timeout, source_address=(source, 0)
        )

    def tls(
        self, who: Credentials, source: str = "127.0.0.1", version: ssl.TLSVersion | None = None
    ) -> ssl.SSLSocket:
        """Open a connection as a site."""
        context = ssl.create_default_context(cafile=self.ca)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if who.certificate is not None and who.key is not None:
            context.load_cert_chain(who.certificate, who.key)
        return context.wrap_socket(self.tcp(source), server_hostname="127.0.0.1")

    def send(self, who: Credentials, data: bytes, **options: Any) -> Answer:
        """Send bytes as a site and read one answer."""
        try:
            with self.tls(who, **options) as line:
                line.sendall(data)
                return read_answer(line)
        except OSError:
            return Answer(0, b"")

    def post(
        self,
        who: Credentials,
        call: str,
        message: Any = b"",
        headers: Headers | None = None,
        extra: Headers | None = None,
    ) -> Answer:
        """Make one of Flower's calls."""
        body = message if isinstance(message, bytes) else message.SerializeToString()
        target = call if call.startswith("/") else f"/v1/fleet/{call}"
        sent = [*(headers if headers is not None else signed(who.node)), *(extra or [])]
        return self.send(who, request_bytes(target, sent, body))

    def call(self, who: Credentials, call: str, message: Any, answer: Any) -> Any:
        """Make a call that is expected to succeed; return its answer."""
        found = self.post(who, call, message)
        if found.status != 200:
            raise ConnectionError(f"{call}: {found.status} {found.body[:200]!r}")
        answer.ParseFromString(found.body)
        return answer

    def is_healthy(self, who: Credentials) -> bool:
        """Return whether a site gets an answer to a health check."""
        data = request_bytes("/health", [("host", "x")], method="GET")
        return self.send(who, data).status == 200


def read_answer(line: socket.socket) -> Answer:
    """Read one answer."""
    response = http.client.HTTPResponse(line)
    try:
        response.begin()
        return Answer(response.status, response.read())
    except (http.client.HTTPException, OSError):
        return Answer(0, b"")
    finally:
        response.close()
