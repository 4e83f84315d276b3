"""What a running coordinator is doing, for people and scripts: ``status.json`` in its home."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

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
        """Start with the facts that do not change."""
        self._path = home / STATUS
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"pid": os.getpid(), "since": utc_now(), **facts}
        self._contacts: dict[str, str] = {}
        self._unwritten = ""

    def contact(self, site: str) -> None:
        """Note that a site has just been in touch."""
        self._contacts[site] = utc_now()

    def event(self, event: Event) -> None:
        """Note the last event of the run."""
        with self._lock:
            self._facts["last_event"] = event
            if event["event"] in PHASES:
                self._facts["phase"] = event["event"]
        self.write()

    def set(self, **facts: Any) -> None:
        """Replace facts."""
        with self._lock:
            self._facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write the file; what cannot be written is said once in the log, and the run goes on."""
        with self._lock:
            content = {"time": utc_now(), **self._facts, "last_contact": dict(self._contacts)}
            try:
                write_atomic(self._path, json.dumps(content, indent=2) + "\n")
                why = ""
            except OSError as error:
                why = os_error_line(error)
            if why and why != self._unwritten:
                logger.warning("the status cannot be written: %s", why)
            self._unwritten = why


def read_board(home: Path) -> dict[str, Any]:
    """Return the last status, empty where there never was one."""
    try:
        content = json.loads((home / STATUS).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def health_of(home: ServerHome) -> Health:
    """Say how a coordinator is doing as monitors want it, quickly."""
    if holder(home.lock) is None:
        return Health.NOT_RUNNING
    phase = read_board(home.path).get("phase", "waiting")
    return Health.WAITING if phase == "waiting" else Health.WORKING
