"""Why the coordinator cannot be reached, in words of its own for each cause."""

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
"""What a proxy answers where nothing answers it: RFC 9110, 15.6.3 to 15.6.5."""
_UNTRUSTED = (18, 19, 20, 21)
"""OpenSSL's verification errors for a chain that does not end at the authority."""


class ServerDown(LinkError):
    """No process listens at the coordinator's address now; nothing else is known to be wrong."""


def is_server_down(error: BaseException, server: str) -> bool:
    """Tell whether the connection was refused at the coordinator's own address.

    A server that runs no run does not listen. A firewall may refuse likewise.
    """
    if proxy_to(server) is None:
        return any(isinstance(cause, ConnectionRefusedError) for cause in causes(error))
    return any(
        isinstance(cause, httpx.ProxyError)
        and str(cause).startswith(tuple(map(str, _BAD_GATEWAYS)))
        for cause in causes(error)
    )


def explain(error: BaseException, server: str) -> str:
    """Say in one line why the coordinator cannot be reached; ``server`` is its ``host:port``.

    Where a proxy leads to it, the connection that failed is the one to the proxy.
    """
    proxy = proxy_to(server)
    if proxy is None and is_server_down(error, server):
        return (
            f"nothing answers at {server}: the run may have ended, or not begun (connection "
            "refused; a firewall does that too)"
        )
    for cause in causes(error):
        words = _proxy_words(cause, proxy) if proxy else _words(cause)
        if words:
            return f"{server}: {words}"
    return f"{server}: {type(error).__name__}" + (f" through {proxy}" if proxy else "")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, ten deep at most."""
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error)
    if isinstance(error, ssl.SSLError):
        return _tls_words(error)
    if isinstance(error, socket.gaierror):
        return "no such host name; check welcome.json and the name servers"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset by the other side"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time: a firewall, or the server hangs"
    if isinstance(error, httpx.RemoteProtocolError):
        return "closed without an answer: it may not accept this site's certificate"
    return (error.strerror or "") if isinstance(error, OSError) else ""


def _proxy_words(error: BaseException, proxy: Proxy) -> str:
    """Name the proxy: httpx opens a connection to it, and TLS with the coordinator through it."""
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"[1-5]\d\d[ A-Za-z-]{0,60}", str(error))
        answer = f" ({status[0].strip()})" if status else ""
        return f"{proxy} did not let it through{answer}; {proxy.remedy}"
    if isinstance(error, socket.gaierror):
        return f"{proxy} has a host name that is not known; {proxy.remedy}"
    if isinstance(error, ssl.SSLError):
        return f"{_words(error)}; {proxy} stands between and may open TLS: {proxy.remedy}"
    words = _words(error)
    return f"{proxy}: {words}; {proxy.remedy}" if words else ""


def _certificate_words(error: ssl.SSLCertVerificationError) -> str:
    clock = f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == 9:
        return f"the server's certificate is not valid yet; {clock}"
    if error.verify_code == 10:
        return f"the server's certificate has expired; {clock}"
    if error.verify_code in _UNTRUSTED:
        return "the server's certificate is of another authority than the welcome's"
    if error.verify_code in (62, 64):
        return "the server's certificate is for another host name"
    return f"the server's certificate was refused: {error.verify_message}"


def _tls_words(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "wrong version number" in reason or "record layer" in reason:
        return "it does not speak TLS"
    if ("alert" in reason and "certificate" in reason) or "unknown ca" in reason:
        return f"it does not accept this site's certificate ({reason})"
    if "eof" in reason:
        return "it closed the connection while TLS was being set up"
    return f"TLS failed: {reason}"
