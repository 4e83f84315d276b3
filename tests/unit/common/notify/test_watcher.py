"""Each notice is told once, across restarts too; a channel that fails harms nothing."""

import json

import pytest
from tests.unit.common.notify.receivers import free_port, port_of, web_server

from mamfed_common.errors import SetupError
from mamfed_common.notify import watcher
from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify


def notice(name):
    return Notice("site gone", name, f"site {name} gone", "see status")


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_000_000.0

        def time(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(watcher, "time", found)
    return found


def watching(path, port, holding, lines=None):
    notify = Notify(webhook={"url": f"http://127.0.0.1:{port}/x", "timeout_seconds": 0.5})
    said = [] if lines is None else lines
    return watcher.Watcher(notify, path, "site a", lambda: list(holding), said.append)


def subjects(server):
    return [body["subject"] for _, _, body in server.got]


def test_a_notice_is_sent_once_while_it_holds_and_a_restart_does_not_repeat_it(tmp_path, clock):
    holding = [notice("north")]
    with web_server() as server:
        first = watching(tmp_path, port_of(server), holding)
        first.look()
        first.look()
        holding.append(notice("west"))
        first.look()
        watching(tmp_path, port_of(server), holding).look()
        assert subjects(server) == ["site north gone", "site west gone"]
        assert oct((tmp_path / "notify.json").stat().st_mode & 0o777) == "0o600"


def test_what_comes_again_is_told_again_but_what_flaps_only_once_an_hour(tmp_path, clock):
    holding = [notice("north")]
    with web_server() as server:
        watch = watching(tmp_path, port_of(server), holding)
        watch.look()
        for minutes in (10, 20):
            holding.clear()
            watch.look()
            holding.append(notice("north"))
            clock.now += 60 * minutes
            watch.look()
        assert len(server.got) == 1
        holding.clear()
        clock.now += watcher.FORGET_SECONDS
        watch.look()
        holding.append(notice("north"))
        watch.look()
        assert len(server.got) == 2


def test_a_failing_channel_is_one_line_and_tried_again_a_bounded_number_of_times(tmp_path, clock):
    lines, port = [], free_port()
    watch = watching(tmp_path, port, [notice("north")], lines)
    for _ in range(3):
        watch.look()
    told = json.loads((tmp_path / "notify.json").read_text())["told"]
    assert told["north"]["tries"] == 1
    for _ in range(2 * watcher.MOST_TRIES):
        clock.now += watcher.AGAIN_SECONDS
        watch.look()
    told = json.loads((tmp_path / "notify.json").read_text())["told"]
    assert told["north"]["tries"] == watcher.MOST_TRIES
    assert lines == ["notify: webhook not delivered (site gone): 127.0.0.1: Connection refused"]


def test_a_notice_that_was_not_delivered_arrives_later(tmp_path, clock):
    holding = [notice("north")]
    watching(tmp_path, free_port(), holding).look()
    with web_server() as server:
        watch = watching(tmp_path, port_of(server), holding)
        watch.look()
        assert not server.got
        clock.now += watcher.AGAIN_SECONDS
        watch.look()
        assert subjects(server) == ["site north gone"]


def test_a_home_that_cannot_be_read_is_one_line(tmp_path):
    lines = []

    def refuse():
        raise SetupError("status.json: damaged")

    watch = watcher.Watcher(Notify(), tmp_path, "site a", refuse, lines.append)
    watch.look()
    watch.look()
    assert lines == ["notify: cannot look at the home: status.json: damaged"]


def test_a_damaged_memory_and_too_many_notices_do_not_stop_it(tmp_path, clock):
    (tmp_path / "notify.json").write_text("{")
    holding = [notice(f"s{number}") for number in range(200)]
    with web_server() as server:
        watching(tmp_path, port_of(server), holding).look()
        assert len(server.got) == watcher.MOST_AT_ONCE
