"""Explanations why the coordinator cannot be reached, one for each cause."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx

from mamfed_client.node.proxies import Proxy, proxy_to
from mamfed_common.errors import LinkError

_BAD_GATEWAYS = (502, 503, 504)
"""Status codes of a proxy that gets no answer: RFC 9110, 15.6.3 to 15.6.5."""
_UNTRUSTED = (18, 19, 20, 21)
"""OpenSSL's verification errors for a chain that does not end at the authority."""


class ServerDown(LinkError):
    """Nothing listens at the coordinator's address; no other error is known."""


def is_server_down(error: BaseException, server: str) -> bool:
    """Return whether the connection was refused at the coordinator's own address.

    The server listens only during a run. A firewall may refuse connections in the same way.
    """
    if proxy_to(server) is None:
        return any(isinstance(cause, ConnectionRefusedError) for cause in causes(error))
    return any(
        isinstance(cause, httpx.ProxyError)
        and str(cause).startswith(tuple(map(str, _BAD_GATEWAYS)))
        for cause in causes(error)
    )


def explain(error: BaseException, server: str) -> str:
    """Return one line on why the coordinator cannot be reached; ``server`` is its ``host:port``.

    With a proxy, the connection that failed is the one to the proxy.
    """
    proxy = proxy_to(server)
    if proxy is None and is_server_down(error, server):
        return (
            f"nothing answers at {server}: the run may have ended or not begun, or a firewall "
            "blocks it (connection refused)"
        )
    for cause in causes(error):
        words = _proxy_words(cause, proxy) if proxy else _words(cause)
        if words:
            return f"{server}: {words}"
    return f"{server}: {type(error).__name__}" + (f" through {proxy}" if proxy else "")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, at most ten."""
    depth = 0
    while error is not None and depth < 10:
        yield error
        error, depth = error.__cause__ or error.__context__, depth + 1


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error)
    if isinstance(error, ssl.SSLError):
        return _tls_words(error)
    if isinstance(error, socket.gaierror):
        return "unknown host name; check welcome.json and the DNS servers"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset by the other side"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time: a firewall blocks it, or the server hangs"
    if isinstance(error, httpx.RemoteProtocolError):
        return "closed without an answer: the server may not accept this site's certificate"
    return (error.strerror or "") if isinstance(error, OSError) else ""


def _proxy_words(error: BaseException, proxy: Proxy) -> str:
    """Explain an error on the way to the proxy, or of TLS with the coordinator through it."""
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"[1-5]\d\d[ A-Za-z-]{0,60}", str(error))
        answer = f" ({status[0].strip()})" if status else ""
        return f"{proxy} blocked the connection{answer}; {proxy.remedy}"
    if isinstance(error, socket.gaierror):
        return f"{proxy} has an unknown host name; {proxy.remedy}"
    if isinstance(error, ssl.SSLError):
        return f"{_words(error)}; {proxy} may be intercepting TLS: {proxy.remedy}"
    words = _words(error)
    return f"{proxy}: {words}; {proxy.remedy}" if words else ""


def _certificate_words(error: ssl.SSLCertVerificationError) -> str:
    clock = f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == 9:
        return f"the server's certificate is not valid yet; {clock}"
    if error.verify_code == 10:
        return f"the server's certificate has expired; {clock}"
    if error.verify_code in _UNTRUSTED:
        return "the server's certificate is not from the authority in the welcome"
    if error.verify_code in (62, 64):
        return "the server's certificate is for another host name"
    return f"the server's certificate was refused: {error.verify_message}"


def _tls_words(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "wrong version number" in reason or "record layer" in reason:
        return "the server does not speak TLS"
    if ("alert" in reason and "certificate" in reason) or "unknown ca" in reason:
        return f"the server does not accept this site's certificate ({reason})"
    if "eof" in reason:
        return "the server closed the connection during the TLS handshake"
    return f"TLS failed: {reason}"
