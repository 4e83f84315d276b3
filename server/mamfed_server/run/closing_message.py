"""How a run ended, told to the sites before the server stops: a site hears nothing afterwards.

Every answer of the listener carries it (``versions.RUN_HEADER``), so that it costs no message and
reaches sites that refuse all of them. Sites that wait for work ask at least every two seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep
from urllib.parse import quote

from mamfed_common.protocol.versions import RUN_HEADER
from mamfed_server.run.state import RunState

RECENT_SECONDS = 10.0
"""A site that was in touch so lately is waited for: it asks again in a moment."""
LONGEST_SECONDS = 10.0
POLL_SECONDS = 0.05


class ClosingMessage:
    """What the sites are told of the run; safe to call from any thread."""

    def __init__(self, run: str) -> None:
        """Begin with a run that goes on."""
        self._run = quote(run, safe="")
        self._how = RunState.RUNNING
        self._lock = threading.Lock()
        self._in_touch: dict[str, float] = {}
        self._told: set[str] = set()

    def header(self) -> tuple[bytes, bytes]:
        """Return the HTTP header of an answer."""
        return RUN_HEADER.encode(), f"{self._how} {self._run}".encode()

    def on_answer(self, site: str) -> Callable[[], None]:
        """Note that a site is in touch; return what to call when its answer is sent."""
        how = self._how
        with self._lock:
            self._in_touch[site] = monotonic()

        def sent() -> None:
            if how is not RunState.RUNNING:
                with self._lock:
                    self._told.add(site)

        return sent

    def end(self, how: RunState) -> None:
        """Say how the run ended, and wait until the sites that are in touch have heard it."""
        self._how = how
        deadline = monotonic() + LONGEST_SECONDS
        recent = monotonic() - RECENT_SECONDS
        while monotonic() < deadline and self._waiting_for(recent):
            sleep(POLL_SECONDS)

    def _waiting_for(self, recent: float) -> set[str]:
        with self._lock:
            return {s for s, at in self._in_touch.items() if at > recent} - self._told
