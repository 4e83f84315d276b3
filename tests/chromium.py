"""Pages in a headless Chromium, driven over its DevTools pipe: what a reader would see."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 60.0


class Seen(NamedTuple):
    """What a browser made of a page.

    Attributes:
        complaints: Console errors, uncaught exceptions, and what the page's own policy blocked.
        requests: Addresses that it asked for beyond the file itself.
        overflow: By how many pixels the page is wider than its window.
        text: What it shows.
        background: The body's colour.
    """

    complaints: list[str]
    requests: list[str]
    overflow: int
    text: str
    background: str


class Chromium:
    """One browser; a context manager."""

    def __init__(self, profile: Path) -> None:
        """Start it with a profile folder of its own."""
        assert PROGRAM
        to_browser, self._requests = os.pipe()
        self._answers, from_browser = os.pipe()
        command = [PROGRAM, "--headless=new", "--no-sandbox", "--remote-debugging-pipe"]
        command += ["--disable-gpu", "--no-first-run", f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads from descriptor 3 and writes to 4; bash, unlike sh, moves them there.
        moved = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        """Return the browser."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._requests)
        os.close(self._answers)

    def look(
        self, page: Path, *, width: int = 1280, scheme: str = "light", media: str = "screen"
    ) -> Seen:
        """Open a file in a window of a width, in a light or a dark scheme, or as printed."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", media=media, features=features)
        self._events.clear()
        self._ask("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        return Seen(
            complaints=[words for event in self._events if (words := _complaint(event))],
            requests=self._requested(page),
            overflow=self._value("document.documentElement.scrollWidth - window.innerWidth"),
            text=self._value("document.body.innerText"),
            background=self._value("getComputedStyle(document.body).backgroundColor"),
        )

    def cut(self) -> list[str]:
        """Return the tables and lists of the page of which a part must be scrolled to sidewards."""
        found: list[str] = self._value(
            "[...document.querySelectorAll('.wide, .scroll, ol, table')]"
            ".filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 1)"
            ".map(each => each.innerText.slice(0, 60))"
        )
        return found

    def _requested(self, page: Path) -> list[str]:
        urls = [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [u for u in urls if u != page.absolute().as_uri() and not u.startswith("data:")]

    def _value(self, expression: str) -> Any:
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """Return the next message; events are kept."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "Chromium does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "Chromium has ended"
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message


def _complaint(event: dict[str, Any]) -> str:
    method, said = event["method"], event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return str(said["exceptionDetails"]["text"])
    if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
        return str(said["args"])
    if method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
        return str(said["entry"]["text"])
    return ""
