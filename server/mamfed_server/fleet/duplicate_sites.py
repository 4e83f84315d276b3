"""Detect two processes with one site's identity, as after a home was copied or restored.

Each start of a site's node draws a random number and sends it with every request. A restarted site
has a new number and never uses the old one again. If two processes run, both numbers keep
returning in turn. The server cannot tell which of the two processes is the right one.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from mamfed_server.run_folder.event_log import utc_now

INSTANCE = re.compile(rb"[0-9a-f]{16}")
RETURNS = 2
"""Returns, one of each process, that a late request of an ended process cannot explain."""
WINDOW_SECONDS = 300.0
"""Lifetime of a return; after this time without one, there is only one process again."""
MAX_INSTANCES = 8


@dataclass
class _Site:
    """The known processes of one site, latest last."""

    order: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_INSTANCES))
    addresses: dict[bytes, str] = field(default_factory=dict)
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RETURNS))
    since: str = ""


class DuplicateSites:
    """Detects sites that answer from two processes; safe to call from any thread."""

    def __init__(
        self, on_duplicate: Callable[[str], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Watch the sites.

        Args:
            on_duplicate: Called with a site's name each time it starts to answer twice.
            clock: Returns the time in seconds.
        """
        self._on_duplicate, self._clock = on_duplicate, clock
        self._sites: dict[str, _Site] = {}
        self._lock = threading.Lock()

    def seen(self, site: str, instance: bytes, address: str) -> None:
        """Record a request.

        Args:
            site: The site that sent it.
            instance: The number of its process; anything else, as from mamfed 0.1.0, is ignored.
            address: The address that it came from.
        """
        if INSTANCE.fullmatch(instance) is None:
            return
        with self._lock:
            is_new = self._record(self._sites.setdefault(site, _Site()), instance, address)
        if is_new:
            self._on_duplicate(site)

    def now(self) -> dict[str, dict[str, object]]:
        """Return the sites that answer twice: since when (UTC) and from which addresses."""
        with self._lock:
            for site in self._sites.values():
                if site.since and not self._returned_recently(site):
                    site.since = ""
            return {
                name: {"since": site.since, "addresses": sorted(set(site.addresses.values()))}
                for name, site in sorted(self._sites.items())
                if site.since
            }

    def _record(self, site: _Site, instance: bytes, address: str) -> bool:
        """Record a request; return whether it is the first to reveal a second process."""
        site.addresses[instance] = address
        if site.order and site.order[-1] == instance:
            return False
        is_return = instance in site.order
        if is_return:
            site.order.remove(instance)
            site.returns.append(self._clock())
        site.order.append(instance)
        site.addresses = {known: site.addresses[known] for known in site.order}
        if not (is_return and len(site.returns) == RETURNS and self._returned_recently(site)):
            return False
        is_new, site.since = not site.since, site.since or utc_now()
        return is_new

    def _returned_recently(self, site: _Site) -> bool:
        return self._clock() - site.returns[0] < WINDOW_SECONDS


def warning(site: str) -> str:
    """Return a warning that explains the cause and the remedy."""
    return (
        f"{site} answers from two processes at once with one identity: its home was copied, "
        "restored or started twice. Messages reach only one of them, so the site may miss rounds. "
        "Ask the site to stop one of the two; otherwise revoke it with mamfed-server sites revoke "
        "and enrol the copy anew"
    )
