"""A real browser on a live page: signed in, listened to, driven by keys, and cut off at will."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.processes.deployment import free_port

CHROMIUM = shutil.which("chromium")
SIZES = {"desk": (1440, 1000), "phone": (390, 844)}
SCHEMES = ("light", "dark")
PATIENCE_MS = 240_000
MOST_KEYS = 60
FOCUSED = """() => {
  const at = document.activeElement;
  return [at.type === "checkbox" ? "checkbox" : at.id || "", at.innerText || "",
          getComputedStyle(at).outlineStyle];
}"""


@contextlib.contextmanager
def signed_in(browser: Any, address: str) -> Iterator[Any]:
    """Yield a tab that has opened a one-time address; its ``complaints`` are the console's."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    yield opened(context, address)
    context.close()


def opened(context: Any, address: str) -> Any:
    """Return a new tab of a context on an address; its ``complaints`` are the console's."""
    tab, complaints = context.new_page(), []
    tab.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(address)
    tab.complaints = complaints
    return tab


def focus(page: Any, words: str) -> None:
    """Press Tab until something of these words has the focus, and shows it."""
    for _ in range(MOST_KEYS):
        page.keyboard.press("Tab")
        name, text, outline = page.evaluate(FOCUSED)
        if words in (name, " ".join(text.split())):
            assert outline != "none", f"{words}: the focus cannot be seen"
            return
    raise AssertionError(f"{words}: not reached by {MOST_KEYS} tabs on {page.url}")


def check_pages(page: Any, paths: list[str]) -> None:
    """Check pages in light and dark, at a desk and on a phone: no serious barrier, not too wide."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    base = "/".join(page.url.split("/")[:3])
    for path in paths:
        for size in SIZES.values():
            page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                page.goto(base + path)
                found = axe.run(page).response["violations"]
                bad = [
                    (each["id"], [node["html"] for node in each["nodes"]][:2])
                    for each in found
                    if each["impact"] in ("serious", "critical")
                ]
                assert bad == [], (path, size, scheme)
                width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert width <= 0, (path, size)


class Line:
    """What lies between a browser and a port of this machine, and can be cut."""

    def __init__(self, port: int) -> None:
        """Hand connections on to a port of loopback."""
        self._to, self.port = port, free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._take, daemon=True).start()

    def count(self) -> int:
        """Return the number of connections."""
        return len(self._open) // 2

    def cut(self) -> int:
        """Break all connections; return how many there were. New ones are handed on."""
        with self._lock:
            cut, self._open = self._open, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return len(cut) // 2

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.cut()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open = [each for each in self._open if each not in (source, target)]
