"""Tell each notice once, and remember it in ``notify.json``: a restart repeats none.

A channel that fails is one line in the journal; the notice is tried again later, a bounded number
of times. Nothing that happens here raises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import Field

from mamfed_common.config import Config
from mamfed_common.errors import MamfedError
from mamfed_common.notify.channels import send
from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import os_error_line, write_atomic

LOOK_SECONDS = 5.0
AGAIN_SECONDS = 300.0
"""Seconds until a notice that was not delivered is tried again."""
MOST_TRIES = 12
FORGET_SECONDS = 3600.0
"""How long a notice no longer holds before it is told again: what flaps is told once an hour."""
MOST_AT_ONCE = 50
"""Most notices that are considered at a time; what holds beyond that waits."""
MOST_KEPT = 1000
STATE = "notify.json"


class Told(Config):
    """What is remembered of a notice.

    Attributes:
        left: The channels that have not taken it.
        tries: How often it was tried.
        at: When it was last tried, seconds since the epoch.
        seen: When it last held, seconds since the epoch.
    """

    left: tuple[str, ...] = ()
    tries: int = 0
    at: float = 0.0
    seen: float = 0.0


class ToldBefore(Config):
    """The content of ``notify.json``: what was told, by the key of the notice."""

    told: dict[str, Told] = Field(default_factory=dict, max_length=MOST_KEPT)


class Watcher:
    """Tells the notices of a home."""

    def __init__(
        self,
        notify: Notify,
        home: Path,
        source: str,
        now_holding: Callable[[], Iterable[Notice]],
        say: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            notify: The settings.
            home: The home, for the state and for relative paths.
            source: Who sends the notices.
            now_holding: Returns the notices that hold now; may raise MamfedError or OSError.
            say: Writes a line to the journal.
        """
        self._notify, self._home, self._source = notify, home, source
        self._now_holding, self._say = now_holding, say
        self._said: set[str] = set()
        self._told = _read(home / STATE)

    def watch(self, stopping: threading.Event) -> None:
        """Look every few seconds until ``stopping`` is set, and once more then."""
        while not stopping.wait(LOOK_SECONDS):
            self.look()
        self.look()

    def look(self) -> None:
        """Tell what holds now and has not been told; never raise."""
        try:
            self._look()
        except (MamfedError, OSError) as error:
            words = os_error_line(error) if isinstance(error, OSError) else str(error)
            self._say_once(f"notify: cannot look at the home: {words}")
        except Exception as error:  # nothing that happens here may reach the run
            self._say_once(f"notify: {type(error).__name__}: this is a fault of mamfed")

    def _look(self) -> None:
        holding = list(self._now_holding())[:MOST_AT_ONCE]
        before = dict(self._told)
        for notice in holding:
            self._tell(notice)
        now = time.time()
        self._told = {
            key: told for key, told in self._told.items() if now - told.seen < FORGET_SECONDS
        }
        if {k: t.at for k, t in before.items()} != {k: t.at for k, t in self._told.items()}:
            self._keep()

    def _tell(self, notice: Notice) -> None:
        now = time.time()
        told = self._told.get(notice.key)
        if told is None and len(self._told) >= MOST_KEPT:
            return
        told = told or Told(left=tuple(self._notify.channels()))
        told = told.model_copy(update={"seen": now})
        due = told.left and told.tries < MOST_TRIES and now - told.at >= AGAIN_SECONDS
        if due:
            left = tuple(channel for channel in told.left if not self._sent(channel, notice))
            told = told.model_copy(update={"left": left, "tries": told.tries + 1, "at": now})
        self._told[notice.key] = told

    def _sent(self, channel: str, notice: Notice) -> bool:
        if channel not in self._notify.channels():
            return True
        try:
            send(self._notify, channel, notice, self._source, self._home)
        except (MamfedError, OSError) as error:
            self._say_once(f"notify: {channel} not delivered ({notice.event}): {error}")
            return False
        self._said = {line for line in self._said if not line.startswith(f"notify: {channel} ")}
        return True

    def _say_once(self, line: str) -> None:
        if line not in self._said and len(self._said) < MOST_AT_ONCE:
            self._said.add(line)
            self._say(" ".join(line.split()))

    def _keep(self) -> None:
        text = ToldBefore(told=self._told).model_dump_json(indent=1)
        write_atomic(self._home / STATE, text + "\n")


def _read(path: Path) -> dict[str, Told]:
    """Return what was told before; nothing if the file is missing or damaged."""
    now = time.time()
    try:
        told = read_json(ToldBefore, path).told if path.exists() else {}
    except (MamfedError, OSError):
        return {}
    return {key: each.model_copy(update={"seen": now}) for key, each in told.items()}
