"""A TCP line from a site to its coordinator, as bad as a test wants it."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from contextlib import suppress

BURST_BYTES = 15_000
"""Half of the small model: no other message is as long."""
LINGER_NOT = struct.pack("ii", 1, 0)
"""Makes ``close`` send a reset instead of a farewell."""


class Line:
    """A TCP line to a port of 127.0.0.1, as bad as it is told to be.

    Attributes:
        port: Where it begins.
        bytes_per_second: Its speed; 0 is as fast as it gets.
        resets: Its transfers that were broken off, by direction.
    """

    def __init__(self, port: int, *, resets: int = 0, bytes_per_second: float = 0) -> None:
        """Begin to listen.

        Args:
            port: Where the line leads.
            resets: How many transfers to break off in either direction.
            bytes_per_second: Its speed; 0 is as fast as it gets.
        """
        self._target = port
        self._left = {"up": resets, "down": resets}
        self.bytes_per_second = bytes_per_second
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self.resets = {"up": 0, "down": 0}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, seconds: float) -> None:
        """Let nothing pass for a while, then go on: TCP repeats what was lost."""
        self._open.clear()
        time.sleep(seconds)
        self._open.set()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                site, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(site,), daemon=True).start()

    def _connect(self, site: socket.socket) -> None:
        try:
            server = self._reach(site)
        except OSError:
            site.close()
            return
        burst = {"up": 0, "down": 0}
        for ends in ((site, server, "up"), (server, site, "down")):
            threading.Thread(target=self._pump, args=(*ends, burst), daemon=True).start()

    def _reach(self, site: socket.socket) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._target))

    def _pump(
        self, source: socket.socket, sink: socket.socket, way: str, burst: dict[str, int]
    ) -> None:
        other = "down" if way == "up" else "up"
        with suppress(OSError):
            while data := source.recv(4096):
                self._open.wait()
                if speed := self.bytes_per_second:
                    time.sleep(len(data) / speed)
                burst[way], burst[other] = burst[way] + len(data), 0
                if burst[way] > BURST_BYTES and self._break(way):
                    _reset(source, sink)
                    return
                sink.sendall(data)
        _close(source, sink)

    def _break(self, way: str) -> bool:
        """Take one of the resets that are left."""
        with self._lock:
            if not self._left[way]:
                return False
            self._left[way] -= 1
            self.resets[way] += 1
            return True


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    _close(*ends)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it, unlike close alone
        end.close()


def send_over(federation, site, server):
    """Let a site know the coordinator by another address."""
    path = federation.site_home(site) / "welcome.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "server": server}))
