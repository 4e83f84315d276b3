"""A TCP line to a port of 127.0.0.1 that fails in the ways of real ones."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from contextlib import suppress

LINGER_NOT = struct.pack("ii", 1, 0)
"""Makes ``close`` send a reset instead of a farewell."""
BYTES_PER_SECOND, LOST_SHARE, REPEAT_SECONDS = 125_000, 0.02, 0.25
"""1 Mbit/s; the share of parts that TCP has to repeat, and how long that takes."""


class CutLine:
    """A line that is whole until :attr:`trouble` says otherwise.

    Attributes:
        port: Where it begins.
        trouble: ``""``, ``black hole`` (nothing passes, nothing is closed), ``up only`` and
            ``down only`` (one direction passes), ``refuse`` (new connections are reset),
            ``handshake`` (new connections stop after their first part), ``slow`` (1 Mbit/s with
            loss).
    """

    def __init__(self, target: int, seed: int) -> None:
        """Begin to listen, and lead to the port ``target``."""
        self.trouble = ""
        self._target, self._random = target, random.Random(seed)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Break off all connections by a reset."""
        for pair in self._take_pairs():
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                _close(end)

    def half_open(self) -> None:
        """Drop the server's ends and leave the sites' ends open, as after a firewall's restart."""
        for _, server in self._take_pairs():
            _close(server)

    def close(self) -> None:
        """Take no more connections, and end all."""
        self._listener.close()
        self.reset()

    def _take_pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                site, _ = self._listener.accept()
                if self.trouble == "refuse":
                    site.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                    site.close()
                    continue
                threading.Thread(target=self._connect, args=(site,), daemon=True).start()

    def _connect(self, site: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            site.close()
            return
        with self._lock:
            self._pairs.append((site, server))
        hung = self.trouble == "handshake"
        for ends in ((site, server, "up"), (server, site, "down")):
            threading.Thread(target=self._pump, args=(*ends, hung), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str, hung: bool) -> None:
        with suppress(OSError, ValueError):
            while data := self._receive(source):
                while self._blocked(way) or (hung and way == "down" and self.trouble):
                    time.sleep(0.05)
                if self.trouble == "slow":
                    lost = self._random.random() < LOST_SHARE
                    time.sleep(len(data) / BYTES_PER_SECOND + lost * REPEAT_SECONDS)
                sink.sendall(data)
        _close(source)
        if self.trouble != "half-open":
            _close(sink)

    def _receive(self, source: socket.socket) -> bytes:
        select.select([source], [], [])
        return source.recv(4096)

    def _blocked(self, way: str) -> bool:
        one_way = {"up only": "down", "down only": "up"}
        return self.trouble == "black hole" or one_way.get(self.trouble) == way


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it, unlike close alone
    end.close()
