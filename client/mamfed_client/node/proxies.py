"""The proxy between this site and the coordinator, if the environment names one.

A failure on the way to a proxy looks like one of the server: the same refused connection, the same
unknown host name. Here is what tells which of the two is meant, without the proxy's password.
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
"""Python takes small letters first."""
_ADDRESS = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:]{2,45}")


class Proxy(NamedTuple):
    """A proxy that requests go through.

    Attributes:
        address: Its ``host:port``, without user and password; empty where its URL is not one.
        source: What names it.
        host: The coordinator's host.
    """

    address: str
    source: str
    host: str

    def __str__(self) -> str:
        """Name the proxy and where it comes from."""
        return (
            f"the proxy {self.address} ({self.source})"
            if self.address
            else (f"the proxy that {self.source} names")
        )

    @property
    def remedy(self) -> str:
        """What to do where it fails."""
        return f"mend {self.source}, or let NO_PROXY={self.host} lead past it"


def proxy_to(server: str) -> Proxy | None:
    """Return the proxy that httpx takes to ``host:port``; None where it connects directly."""
    host = server.rpartition(":")[0].strip("[]")
    proxies = getproxies()
    url = proxies.get("https") or proxies.get("all")
    if not url or proxy_bypass(host):
        return None
    source = next((name for name in VARIABLES if os.environ.get(name)), "the system's settings")
    return Proxy(_address(url), source, host)


def check_proxy(server: str) -> None:
    """Refuse a proxy that no request can go through, before one is tried.

    Raises:
        LinkError: Its URL is none, or of a kind that is not spoken. Nothing of the URL but host
            and port is quoted.
    """
    proxy = proxy_to(server)
    if proxy is None:
        return
    try:
        httpx.Client(verify=False).close()  # reads the proxies; no request is made
    except (ImportError, ValueError, httpx.InvalidURL):
        raise LinkError(
            f"{server}: {proxy} cannot be used: expected http://HOST:PORT, special characters of a "
            f"password as %XX; {proxy.remedy}"
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
