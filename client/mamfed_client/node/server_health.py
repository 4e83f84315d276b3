"""A request for the health of the coordinator's server, over this site's TLS."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

from mamfed_client.node.connection_errors import ServerDown, explain, is_server_down
from mamfed_client.node.proxies import check_proxy
from mamfed_client.node.server_tls import detail_of, tls_context
from mamfed_client.site.settings import SiteHome
from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.protocol.versions import MAMFED_HEADER

CONNECT_SECONDS = 10.0


class HealthReply(NamedTuple):
    """The answer of the server's ``/health``.

    Attributes:
        headers: Its HTTP headers, with names in lower case.
        ahead_seconds: Seconds that this clock is ahead of the server's, to within a second.
    """

    headers: dict[str, str]
    ahead_seconds: float


def ask_health(home: SiteHome, server: str) -> HealthReply:
    """Ask the server for its health over this site's TLS.

    Raises:
        SetupError: This site's certificate cannot be used.
        ServerDown: Nothing listens at its address.
        LinkError: The server does not answer, is not the right one, or refuses this site.
    """
    context = tls_context(home)
    check_proxy(server)
    before = time.time()
    try:
        with httpx.Client(verify=context, timeout=CONNECT_SECONDS) as client:
            response = client.get(f"https://{server}/health", headers={MAMFED_HEADER: __version__})
    except httpx.TransportError as error:
        kind = ServerDown if is_server_down(error, server) else LinkError
        raise kind(explain(error, server)) from None
    if response.status_code != httpx.codes.OK:
        raise LinkError(f"{server}: {response.status_code}: {detail_of(response, 'no reason')}")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return HealthReply(headers, _ahead((before + time.time()) / 2, headers.get("date")))


def _ahead(ours: float, date: str | None) -> float:
    """Return the seconds by which our clock is ahead; HTTP dates are truncated to seconds."""
    if date is None:
        return 0.0
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    return (datetime.fromtimestamp(ours, UTC) - theirs).total_seconds() - 0.5
