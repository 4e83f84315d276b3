"""Two processes with one site's identity: a home that was copied, or restored beside the old one.

Each start of a site's node draws a number, which goes with its requests. A site that starts again
has a new one and never comes back with the old one. Two processes take turns: the one that was
thought gone is there again, and again. Nobody can tell which of the two is right.
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
"""So many returns, one of each process, are no late request of a process that has just ended."""
WINDOW_SECONDS = 300.0
"""How long a return counts: after so long without one there is one process again."""
MOST_KEPT = 8


@dataclass
class _Site:
    """What is known of one site's processes, the latest last."""

    order: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    addresses: dict[bytes, str] = field(default_factory=dict)
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RETURNS))
    since: str = ""


class DuplicateSites:
    """Notices sites that answer from two processes; safe to call from any thread."""

    def __init__(
        self, on_twins: Callable[[str], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Call ``on_twins`` with a site's name, once until it was alone again."""
        self._on_twins, self._clock = on_twins, clock
        self._sites: dict[str, _Site] = {}
        self._lock = threading.Lock()

    def seen(self, site: str, instance: bytes, address: str) -> None:
        """Take note of a request.

        Args:
            site: Whose it is.
            instance: The number of its process; anything else, as of mamfed 0.1.0, is passed over.
            address: Where it came from.
        """
        if INSTANCE.fullmatch(instance) is None:
            return
        with self._lock:
            begins = self._note(self._sites.setdefault(site, _Site()), instance, address)
        if begins:
            self._on_twins(site)

    def now(self) -> dict[str, dict[str, object]]:
        """Return the sites that answer twice now: since when (UTC), and from which addresses."""
        with self._lock:
            for known in self._sites.values():
                if known.since and not self._returned_lately(known):
                    known.since = ""
            return {
                site: {"since": known.since, "addresses": sorted(set(known.addresses.values()))}
                for site, known in sorted(self._sites.items())
                if known.since
            }

    def _note(self, known: _Site, instance: bytes, address: str) -> bool:
        """Note a request; return whether it shows, for the first time, that there are two."""
        known.addresses[instance] = address
        if known.order and known.order[-1] == instance:
            return False
        came_back = instance in known.order
        if came_back:
            known.order.remove(instance)
            known.returns.append(self._clock())
        known.order.append(instance)
        known.addresses = {one: known.addresses[one] for one in known.order}
        if not (came_back and len(known.returns) == RETURNS and self._returned_lately(known)):
            return False
        begins, known.since = not known.since, known.since or utc_now()
        return begins

    def _returned_lately(self, known: _Site) -> bool:
        return self._clock() - known.returns[0] < WINDOW_SECONDS


def warning(site: str) -> str:
    """Say what it means and what to do."""
    return (
        f"{site} answers from two processes at once with one identity: a home that was copied or "
        "restored, or started twice; messages reach either, so rounds of it may be lost. Have the "
        "site stop one of the two, or sites revoke it and enrol the copy anew"
    )
