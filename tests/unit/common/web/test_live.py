"""The stream that keeps a page up to date, and what a page gets that comes back."""

import time
from contextlib import ExitStack

import pytest
from starlette.routing import Route
from tests.unit.common.web.served import served

from mamfed_common.web.live import MOST_OF_ONE, Lines, Live, message


class _State:
    """Panels and a numbered journal that a test changes."""

    def __init__(self):
        self.panels = {"sites": "<p>two</p>", "run": "<p>round 1</p>"}
        self.lines = ["started"]
        self.reads = 0

    def read(self):
        self.reads += 1
        return self.panels

    def journal(self, after, query):
        run, _, number = after.partition(":")
        known = int(number) if run == "first" and number.isdecimal() else 0
        new = [line for line in self.lines[known:] if query.get("kind", "") in line]
        whole = run not in ("", "first")
        return Lines(f"first:{len(self.lines)}", "".join(f"<li>{n}</li>" for n in new[::-1]), whole)


@pytest.fixture
def state():
    return _State()


@pytest.fixture
def site(state, tmp_path):
    live = Live(state.read, state.journal, every_seconds=0.05)
    with served([Route("/live", live.stream)], tmp_path) as running:
        yield running


def _messages(response):
    event = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = event[name] + "\n" + value if name in event else value
        elif event:
            if "data" in event:
                yield event
            event = {}


def test_a_page_gets_everything_then_only_what_changed(site, state):
    with site.client() as client, client.stream("GET", "/live") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        messages = _messages(response)
        first = next(messages)
        assert 'hx-target="#sites"' in first["data"]
        assert 'hx-target="#run"' in first["data"]
        assert "<li>started</li>" in first["data"]
        assert first["id"] == "first:1"
        state.panels = {**state.panels, "run": "<p>round 2\nof 3</p>"}
        second = next(messages)
        assert "sites" not in second["data"]
        assert "round 2\nof 3" in second["data"]
        state.lines.append("finished")
        third = next(messages)
        assert third["id"] == "first:2"
        assert third["data"] == (
            '<hx-partial hx-target="#journal" hx-swap="afterbegin"><li>finished</li></hx-partial>'
        )


def test_a_page_that_comes_back_gets_what_it_missed_and_nothing_twice(site, state):
    with site.client() as client:
        with client.stream("GET", "/live") as response:
            last = next(_messages(response))["id"]
        state.lines += ["round", "refused"]
        with client.stream("GET", "/live", headers={"last-event-id": last}) as response:
            data = next(_messages(response))["data"]
        assert "<li>refused</li><li>round</li>" in data
        assert "started" not in data
        assert 'hx-target="#sites"' in data
        with client.stream("GET", "/live?after=first:2&kind=ref") as response:
            assert "<li>round" not in next(_messages(response))["data"]
        with client.stream("GET", "/live", headers={"last-event-id": "older:7"}) as response:
            data = next(_messages(response))["data"]
        assert 'hx-swap="innerHTML"><li>refused</li><li>round</li><li>started</li>' in data


def test_nobody_gets_a_stream_without_a_session(site):
    with site.client(signed_in=False) as client:
        assert client.get("/live").status_code == 401


def test_one_browser_has_few_streams_and_they_share_one_reading(site, state):
    with site.client() as client, ExitStack() as stack:
        kept = []
        for _ in range(MOST_OF_ONE):
            kept.append(_messages(stack.enter_context(client.stream("GET", "/live"))))
            next(kept[-1])
        with client.stream("GET", "/live") as refused:
            assert refused.status_code == 503
        state.reads = 0
        time.sleep(0.5)
        assert 1 <= state.reads <= 22  # not that many times six


def test_an_event_cannot_be_split_by_its_text():
    assert message("a\n\nb", "x\ny") == "id: x y\ndata: a\ndata: \ndata: b\n\n"
