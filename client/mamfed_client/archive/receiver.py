"""Takes the objects that an archive sends within a C-GET or C-MOVE, as bytes of bounded size."""

from __future__ import annotations

from socket import IPPROTO_TCP, TCP_NODELAY
from threading import Condition
from typing import Any

from pynetdicom import evt

from mamfed_common.runtime.bounded import IMAGE_BYTES

SUCCESS, OUT_OF_RESOURCES, NOT_ASKED_FOR = 0x0000, 0xA700, 0x0124
"""Status of a C-STORE (PS3.7 C, PS3.4 B.2.3)."""
ALLOWANCE = 1 << 20
"""Bytes that commands and protocol may add to an image."""


class Receiver:
    """Keeps one object that was asked for; anything else is refused."""

    def __init__(self, limit: int = IMAGE_BYTES) -> None:
        """Expect nothing yet.

        Args:
            limit: Largest object in bytes.
        """
        self._limit = limit
        self._changed = Condition()
        self._expected = ""
        self._data: bytes | None = None
        self._too_large = False
        self._received: dict[int, int] = {}

    def handlers(self) -> list[Any]:
        """Return the event handlers of an association."""
        return [
            (evt.EVT_CONN_OPEN, send_at_once),
            (evt.EVT_C_STORE, self.store),
            (evt.EVT_DATA_RECV, self.count),
        ]

    def expect(self, uid: str) -> None:
        """Take the object with this SOP Instance UID next."""
        with self._changed:
            self._expected, self._data, self._too_large = uid, None, False
            self._received.clear()

    def reset(self) -> None:
        """Count the bytes of the next answer from zero."""
        with self._changed:
            self._received.clear()

    def take(self, timeout_s: float = 0) -> tuple[bytes | None, bool]:
        """Return the object, or None, and whether an object was too large.

        Args:
            timeout_s: Longest wait for it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._data is not None or self._too_large, timeout_s)
            data, self._data, self._expected = self._data, None, ""
            return data, self._too_large

    def store(self, event: Any) -> int:
        """Handle a C-STORE."""
        data = event.encoded_dataset()
        with self._changed:
            self._received.clear()
            if not self._expected or event.request.AffectedSOPInstanceUID != self._expected:
                return NOT_ASKED_FOR
            if len(data) > self._limit:
                self._too_large = True
                return OUT_OF_RESOURCES
            self._data = data
            self._changed.notify_all()
        return SUCCESS

    def count(self, event: Any) -> None:
        """End an association that sends more than an image without completing one."""
        with self._changed:
            key = id(event.assoc)
            self._received[key] = self._received.get(key, 0) + len(event.data)
            if self._received[key] <= self._limit + ALLOWANCE:
                return
            self._too_large = True
            self._changed.notify_all()
        event.assoc.abort()


def send_at_once(event: Any) -> None:
    """Have a new connection send small packets at once (TCP_NODELAY).

    A request is a command and a data set, each sent by itself. Without it, the second one waits
    until the first is acknowledged, which the archive's machine puts off by 40 ms (Linux) to
    200 ms (Windows).
    """
    event.assoc.dul.socket.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
