"""Who may hold how many connections, decided at accept, before any TLS.

There are two kinds of connection: strangers, and sites. A stranger becomes a site once the TLS
handshake has shown a certificate of the federation. Each kind has room of its own. When a kind is
full, one connection is closed for each new one: the oldest one of the address with the most
strangers, or one of the site with the most connections, preferably an idle one. Whoever holds many
loses first; an honest site needs few, is quick, and gets in. All calls come from the event loop.
"""

from __future__ import annotations

import ipaddress
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

from mamfed_common.errors import LinkError

MOST_CONNECTIONS, MOST_STRANGERS, FEWEST_CONNECTIONS = 8000, 1000, 32
"""A waiting site keeps a connection; a stranger needs one for a moment, and it may cost 0.3 MB:
enough for all that come back at once after a restart, as fast as they can be greeted."""
RESERVED_DESCRIPTORS = 128
"""Files that the server may open beside its connections: checkpoints, updates, logs, registry."""
MOST_DESCRIPTORS = 16384
CONNECTIONS_PER_SITE = 16
"""A site's node uses up to four."""
STRANGERS_SHARE = 4
"""Strangers may use at most one connection in four, of all and of those from one address."""


def _nothing() -> None:
    """Do nothing: the connection is closed."""


def _yes() -> bool:
    return True


@dataclass(eq=False)
class Connection:
    """One accepted connection.

    Attributes:
        address: Where it comes from: an IPv4 address, or the first 64 bits of an IPv6 address.
        close: Closes it at once.
        is_idle: Returns whether no request is under way.
        site: The site, once TLS has shown its certificate.
        since: When it was accepted, or when its last request ended.
    """

    address: str
    close: Callable[[], None]
    since: float
    is_idle: Callable[[], bool] = _yes
    site: str = ""


class Connections:
    """All open connections.

    Attributes:
        turned_away: Connections that were closed to keep the limits, in total.
    """

    def __init__(
        self, total: int, per_address: int, clock: Callable[[], float] = monotonic
    ) -> None:
        """Start without connections.

        Args:
            total: Maximum number of open connections.
            per_address: Maximum number of open connections from one address.
            clock: Returns the time in seconds.
        """
        self._strangers = max(1, min(MOST_STRANGERS, total // STRANGERS_SHARE))
        self._sites = max(1, total - self._strangers)
        self._strangers_here = max(1, per_address // STRANGERS_SHARE)
        self._sites_here = max(1, per_address - self._strangers_here)
        self._clock = clock
        self._open: dict[Connection, None] = {}
        self.turned_away = 0

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def accept(self, host: str, close: Callable[[], None]) -> Connection:
        """Admit a stranger; close older ones as far as that is needed."""
        new = Connection(address_of(host), close, self._clock())
        here = [c for c in self._of_strangers() if c.address == new.address]
        if len(here) >= self._strangers_here:
            self._turn_away(here[0])
        strangers = self._of_strangers()
        if len(strangers) >= self._strangers:
            most = _most_frequent(c.address for c in strangers)
            self._turn_away(next(c for c in strangers if c.address == most))
        self._open[new] = None
        return new

    def identify(self, connection: Connection, site: str) -> bool:
        """Record whose connection it is; return False if that site may have no more."""
        if connection not in self._open:
            return False
        others = [c for c in self._open if c.site]
        connection.site = site
        return (
            self._make_room(connection, [c for c in others if c.site == site], CONNECTIONS_PER_SITE)
            and self._make_room(
                connection, [c for c in others if c.address == connection.address], self._sites_here
            )
            and self._make_room(connection, others, self._sites)
        )

    def closed(self, connection: Connection) -> None:
        """Forget a connection.

        Its functions refer back to it: such a cycle would hold its TLS buffers, 0.3 MB, until
        Python's collector happens to run.
        """
        self._open.pop(connection, None)
        connection.close, connection.is_idle = _nothing, _yes

    def all(self) -> list[Connection]:
        """Return the open connections, oldest first."""
        return list(self._open)

    def _of_strangers(self) -> list[Connection]:
        return [c for c in self._open if not c.site]

    def _make_room(self, new: Connection, others: Iterable[Connection], limit: int) -> bool:
        """Close one connection of the site with the most, preferably an idle one."""
        others = [c for c in others if c in self._open]
        if len(others) < limit:
            return True
        idle = [c for c in others if c.is_idle()]
        holders = Counter(c.site for c in others)
        most = _most_frequent(c.site for c in idle or others)
        if not idle and holders[most] <= holders[new.site] + 1:
            self._turn_away(new)
            return False
        candidates = (c for c in idle or others if c.site == most)
        self._turn_away(min(candidates, key=lambda c: c.since))
        return True

    def _turn_away(self, connection: Connection) -> None:
        self.turned_away += 1
        close = connection.close
        self.closed(connection)
        close()


def _most_frequent(holders: Iterable[str]) -> str:
    return Counter(holders).most_common(1)[0][0]


def address_of(host: str) -> str:
    """Return the part of an address that one holder cannot choose: IPv6 is handed out by /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(address), 64), strict=False).network_address)


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as it may; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def room_for_connections() -> int:
    """Return how many connections the limit of open files leaves room for.

    Raises:
        LinkError: Too few.
    """
    limit, used = raise_file_limit(), len(os.listdir("/proc/self/fd"))
    room = min(MOST_CONNECTIONS, limit - used - RESERVED_DESCRIPTORS)
    if room < FEWEST_CONNECTIONS:
        needed = used + RESERVED_DESCRIPTORS + FEWEST_CONNECTIONS
        raise LinkError(
            f"found a limit of {limit} open files, expected at least {needed}; raise it with "
            "ulimit -n or LimitNOFILE"
        )
    return room
