"""Who is signed in: sessions in memory, and the address with a token that opens one."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from mamfed_common.runtime.files import write_atomic

TOKEN_BYTES = 32
IDLE_SECONDS = 12 * 3600.0
"""A session ends after half a day without a request; an open page makes requests."""
MOST_SESSIONS = 64


@dataclass
class Session:
    """One signed-in browser.

    Attributes:
        who: The person's name of the password file; ``local``: by the token of this machine.
        csrf: What each of its forms must carry.
        used: When it was last used, by a monotonic clock.
    """

    who: str
    csrf: str
    used: float


class Sessions:
    """All signed-in browsers; safe to call from any thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Start with nobody signed in."""
        self._clock, self._lock = clock, threading.Lock()
        self._open: dict[str, Session] = {}

    def open(self, who: str) -> str:
        """Sign somebody in; return the session's secret. The least used one makes room."""
        key = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            if len(self._open) >= MOST_SESSIONS:
                del self._open[min(self._open, key=lambda each: self._open[each].used)]
            csrf = secrets.token_urlsafe(TOKEN_BYTES)
            self._open[key] = Session(who, csrf, self._clock())
        return key

    def get(self, key: str) -> Session | None:
        """Return a session that has not ended, and note that it is used."""
        with self._lock:
            session, now = self._open.get(key), self._clock()
            if session is None:
                return None
            if now - session.used > IDLE_SECONDS:
                del self._open[key]
                return None
            session.used = now
            return session

    def close(self, key: str) -> None:
        """Sign a browser out."""
        with self._lock:
            self._open.pop(key, None)


class OneTimeAddress:
    """An address that signs one browser in; a new one replaces it at once.

    The current one stands in a file (0600), so that whoever may read the home can open the page.
    """

    def __init__(self, path: Path, base: str) -> None:
        """Write the first address.

        Args:
            path: The file.
            base: Scheme, host and port: ``http://127.0.0.1:8787``.

        Raises:
            OSError: The file cannot be written.
        """
        self._path, self._base, self._lock = path, base, threading.Lock()
        self.current = self._renew()

    def redeem(self, token: str) -> bool:
        """Return whether a token is the current one, which is thereby used up."""
        with self._lock:
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return False
            self.current = self._renew()
            return True

    def remove(self) -> None:
        """Remove the file, at the end."""
        self._path.unlink(missing_ok=True)

    def _renew(self) -> str:
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        address = f"{self._base}/sign-in?token={self._token}"
        write_atomic(self._path, address + "\n")
        return address
