"""Tell the sites how a run ended before the server stops; afterwards, they cannot reach it.

Every HTTP response carries the run's state in a header (``versions.RUN_HEADER``). It needs no
message of its own and reaches sites that refuse all messages. The polls of waiting sites
(``held_polls.py``) are answered at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep
from urllib.parse import quote

from mamfed_common.protocol.versions import RUN_HEADER
from mamfed_server.run.state import RunState

RECENT_SECONDS = 10.0
"""The end waits for sites that made a request within this time: they will poll again soon."""
MAX_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.05


class ClosingMessage:
    """The state of the run as told to the sites; safe to call from any thread."""

    def __init__(self, run: str) -> None:
        """Start with the run named ``run`` in state ``running``."""
        self._run = quote(run, safe="")
        self._state = RunState.RUNNING
        self._lock = threading.Lock()
        self._last_request: dict[str, float] = {}
        self._informed: set[str] = set()
        self._release: Callable[[], None] = lambda: None

    def release_with(self, release: Callable[[], None]) -> None:
        """At the end, call ``release`` first: it answers what waits."""
        self._release = release

    def header(self) -> tuple[bytes, bytes]:
        """Return the HTTP header of a response."""
        return RUN_HEADER.encode(), f"{self._state} {self._run}".encode()

    def seen(self, site: str) -> None:
        """Record that a site is there."""
        with self._lock:
            self._last_request[site] = monotonic()

    def on_answer(self, site: str) -> Callable[[], None]:
        """Record a site's request; return the function to call once its response is sent."""
        state = self._state
        self.seen(site)

        def sent() -> None:
            if state is not RunState.RUNNING:
                with self._lock:
                    self._informed.add(site)

        return sent

    def end(self, state: RunState) -> None:
        """Set the final state and wait until every recently active site has received it."""
        self._state = state
        self._release()
        deadline = monotonic() + MAX_WAIT_SECONDS
        active_since = monotonic() - RECENT_SECONDS
        while monotonic() < deadline and self._uninformed(active_since):
            sleep(POLL_SECONDS)

    def _uninformed(self, active_since: float) -> set[str]:
        with self._lock:
            active = {site for site, at in self._last_request.items() if at > active_since}
            return active - self._informed
