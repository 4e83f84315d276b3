"""The proxy between this site and the coordinator, if the environment names one.

A failed connection to a proxy looks like a failed connection to the server: both are refused, or
have an unknown host name. This module tells the two apart, without showing the proxy's password.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from mamfed_common.errors import LinkError

VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""In Python's order: lower case first."""
_ADDRESS = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:]{2,45}")


class Proxy(NamedTuple):
    """A proxy for requests to the coordinator.

    Attributes:
        address: Its ``host:port``, without user and password; empty if its URL is invalid.
        source: The variable or setting that names it.
        host: The coordinator's host.
    """

    address: str
    source: str
    host: str

    def __str__(self) -> str:
        """Return the proxy's address and source."""
        return (
            f"the proxy {self.address} ({self.source})"
            if self.address
            else (f"the proxy that {self.source} names")
        )

    @property
    def remedy(self) -> str:
        """Return what to do if it fails."""
        return f"correct {self.source}, or bypass the proxy with NO_PROXY={self.host}"


def proxy_to(server: str) -> Proxy | None:
    """Return the proxy that httpx uses for ``host:port``; None if it connects directly."""
    host = server.rpartition(":")[0].strip("[]")
    proxies = getproxies()
    url = proxies.get("https") or proxies.get("all")
    if not url or proxy_bypass(host):
        return None
    source = next((name for name in VARIABLES if os.environ.get(name)), "the system's settings")
    return Proxy(_address(url), source, host)


def check_proxy(server: str) -> None:
    """Refuse an unusable proxy before any request.

    Raises:
        LinkError: Its URL is invalid or of an unsupported kind. Only host and port are quoted.
    """
    proxy = proxy_to(server)
    if proxy is None:
        return
    try:
        httpx.Client(verify=False).close()  # reads the proxies; no request is made
    except (ImportError, ValueError, httpx.InvalidURL):
        raise LinkError(
            f"{server}: {proxy} cannot be used: expected http://HOST:PORT, with special characters "
            f"of a password as %XX; {proxy.remedy}"
        ) from None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not _ADDRESS.fullmatch(host) or "/" in parts.path.strip("/") or "@" in parts.path:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown
