"""The stream that keeps a page up to date: server-sent events that htmx puts in place.

Upon connecting, the page gets every panel, so that it always shows the state; then only panels that
have changed. Lines of a journal are numbered: a page that reconnects says the last one it has
(``Last-Event-ID``) and gets those after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic
from typing import NamedTuple

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

MOST_STREAMS, MOST_OF_ONE = 24, 6
"""Open streams in total, and of one session."""
ALIVE_SECONDS = 5.0
"""How often a page hears that the connection works."""
ID_LETTERS = 200


class Lines(NamedTuple):
    """New lines of a journal.

    Attributes:
        last: Identifies the last line.
        html: The lines, latest first.
        whole: Whether they replace what the page shows, as after a change of the run.
    """

    last: str
    html: str
    whole: bool = False


Panels = Callable[[], Mapping[str, str]]
"""Returns the content of each panel now, by the element's id; called from a thread."""
Journal = Callable[[str, Mapping[str, str]], Lines]
"""Returns the lines after an id, given the query of the stream's address; called from a thread."""


class Live:
    """The state of pages, read once for all of them."""

    def __init__(
        self,
        panels: Panels,
        journal: Journal | None = None,
        *,
        journal_id: str = "journal",
        every_seconds: float = 2.0,
    ) -> None:
        """Watch a state.

        Args:
            panels: Returns the content of the panels.
            journal: Returns new lines of the journal.
            journal_id: The element that holds the journal's lines.
            every_seconds: How often they are read while a page is open.
        """
        self._panels, self._journal, self._journal_id = panels, journal, journal_id
        self.every_seconds = every_seconds
        self._read_at, self._now = float("-inf"), dict[str, str]()
        self._reading: asyncio.Lock | None = None
        self._open: list[str] = []

    async def stream(self, request: Request) -> Response:
        """Answer with a stream of events, or 503 if too many are open."""
        who = request.state.session.csrf
        if len(self._open) >= MOST_STREAMS or self._open.count(who) >= MOST_OF_ONE:
            words = "too many pages are open; close one\n"
            return PlainTextResponse(words, 503, {"retry-after": "10"})
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        query = dict(request.query_params)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        events = self._events(who, after[:ID_LETTERS], query)
        return StreamingResponse(events, 200, headers, "text/event-stream")

    async def _events(self, who: str, after: str, query: Mapping[str, str]) -> AsyncIterator[str]:
        self._open.append(who)
        try:
            shown: dict[str, str] = {}
            spoken = monotonic()
            yield "retry: 1000\n\n"
            while True:
                now = await self._read()
                changed = {name: html for name, html in now.items() if shown.get(name) != html}
                shown |= changed
                lines = await self._lines(after, query)
                after = lines.last
                if changed or lines.html or lines.whole:
                    spoken = monotonic()
                    yield message(self._parts(changed, lines), after)
                elif monotonic() - spoken >= ALIVE_SECONDS:
                    spoken = monotonic()
                    yield "event: alive\ndata: yes\n\n"
                await asyncio.sleep(self.every_seconds)
        finally:
            self._open.remove(who)

    async def _read(self) -> Mapping[str, str]:
        self._reading = self._reading or asyncio.Lock()
        async with self._reading:
            if monotonic() - self._read_at >= self.every_seconds / 2:
                self._now = dict(await to_thread.run_sync(self._panels))
                self._read_at = monotonic()
        return self._now

    async def _lines(self, after: str, query: Mapping[str, str]) -> Lines:
        journal = self._journal
        if journal is None:
            return Lines(after, "")
        return await to_thread.run_sync(lambda: journal(after, query))

    def _parts(self, changed: Mapping[str, str], lines: Lines) -> str:
        parts = [partial(name, html, "innerMorph") for name, html in changed.items()]
        if lines.html or lines.whole:
            swap = "innerHTML" if lines.whole else "afterbegin"
            parts.append(partial(self._journal_id, lines.html, swap))
        return "\n".join(parts)


def partial(name: str, html: str, swap: str) -> str:
    """Return what makes htmx put HTML into an element."""
    return f'<hx-partial hx-target="#{name}" hx-swap="{swap}">{html}</hx-partial>'


def message(text: str, last: str) -> str:
    """Return one server-sent event (WHATWG HTML, 9.2.5)."""
    lines = [f"data: {line}" for line in text.splitlines()]
    if last:
        lines.insert(0, f"id: {' '.join(last.split())}")
    return "\n".join(lines) + "\n\n"
