"""``status.json`` in a coordinator's home: what its server process is doing."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_values
from mamfed_common.runtime.files import os_error_line, write_atomic
from mamfed_common.runtime.health import Health
from mamfed_common.runtime.lock import holder
from mamfed_server.run_folder.event_log import PHASES, Event, utc_now
from mamfed_server.settings import ServerHome

logger = logging.getLogger(__name__)

STATUS = "status.json"


class StatusFile:
    """Keeps ``status.json`` up to date; safe to call from any thread."""

    def __init__(self, home: Path, **facts: Any) -> None:
        """Prepare the file of a home; ``facts`` are those that do not change."""
        self._path = home / STATUS
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"pid": os.getpid(), "since": utc_now(), **facts}
        self._contacts: dict[str, str] = {}
        self._unwritten = ""

    def contact(self, site: str) -> None:
        """Record that a site has just contacted the server; the next write includes it."""
        self._contacts[site] = utc_now()

    def event(self, event: Event) -> None:
        """Write an event of the run as the latest one."""
        with self._lock:
            self._facts["last_event"] = event
            if event["event"] in PHASES:
                self._facts["phase"] = event["event"]
        self.write()

    def set(self, **facts: Any) -> None:
        """Add or replace facts and write the file."""
        with self._lock:
            self._facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write the file; if that fails, log the reason once and let the run continue."""
        with self._lock:
            content = {"time": utc_now(), **self._facts, "last_contact": dict(self._contacts)}
            try:
                write_atomic(self._path, json.dumps(content, indent=2) + "\n")
                why = ""
            except OSError as error:
                why = os_error_line(error)
            if why and why != self._unwritten:
                logger.warning("cannot write the status: %s", why)
            self._unwritten = why


def read_status_file(home: Path) -> dict[str, Any]:
    """Return the contents of ``status.json``, empty if it is missing or damaged."""
    try:
        content = read_values(home / STATUS, DOCUMENT_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def health_of(home: ServerHome) -> Health:
    """Return a coordinator's health for monitoring, without loading the run."""
    if holder(home.lock) is None:
        return Health.NOT_RUNNING
    phase = read_status_file(home.path).get("phase", "waiting")
    return {"waiting": Health.WAITING, "paused": Health.PAUSED}.get(phase, Health.WORKING)
