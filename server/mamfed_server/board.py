"""What a running coordinator is doing, for people and scripts: ``status.json`` in its home."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.files import write_atomic
from mamfed_server.events import Event, utc_now

STATUS = "status.json"
LOCK = "server.lock"


class Board:
    """Keeps ``status.json`` up to date; safe to call from any thread."""

    def __init__(self, home: Path, **facts: Any) -> None:
        """Start with the facts that do not change."""
        self._path = home / STATUS
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"pid": os.getpid(), "since": utc_now(), **facts}
        self._contacts: dict[str, str] = {}

    def contact(self, site: str) -> None:
        """Note that a site has just been in touch."""
        self._contacts[site] = utc_now()

    def event(self, event: Event) -> None:
        """Note the last event of the run."""
        with self._lock:
            self._facts["last_event"] = event
        self.write()

    def set(self, **facts: Any) -> None:
        """Replace facts."""
        with self._lock:
            self._facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write the file."""
        with self._lock:
            content = {"time": utc_now(), **self._facts, "last_contact": dict(self._contacts)}
            write_atomic(self._path, json.dumps(content, indent=2) + "\n")


def read_board(home: Path) -> dict[str, Any]:
    """Return the last status, empty where there never was one."""
    try:
        content = json.loads((home / STATUS).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def only_server(home: Path) -> Iterator[None]:
    """Keep a second ``mamfed-server start`` out of a home; a kill leaves no lock behind.

    Raises:
        SetupError: One is running.
    """
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(
                f"{home}: a server runs here already (pid {file.read().strip()}); "
                "stop it by mamfed-server stop"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def running_server(home: Path) -> int | None:
    """Return the process id of the ``mamfed-server start`` that runs in a home."""
    try:
        with (home / LOCK).open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LinkError(f"{home / LOCK}: a server starts or ends just now; try again") from error
    return None
