"""How a run ended is told to the sites that are in touch, and to no others waited for."""

import threading
import time

from mamfed_server.run.closing_message import ClosingMessage
from mamfed_server.run.state import RunState


def test_a_run_that_goes_on_is_told_of_by_its_name():
    assert ClosingMessage("night shift").header() == (b"x-mamfed-run", b"running night%20shift")


def test_the_end_waits_until_each_site_in_touch_has_an_answer_that_says_so(monkeypatch):
    news = ClosingMessage("first")
    early = [news.on_answer(site) for site in ("ada", "bea")]
    ending = threading.Thread(target=news.end, args=(RunState.FINISHED,))
    ending.start()
    for sent in early:
        sent()  # made before the end: says that the run goes on
    time.sleep(0.2)
    assert ending.is_alive()
    assert news.header()[1] == b"finished first"
    news.on_answer("ada")()
    time.sleep(0.2)
    assert ending.is_alive()
    news.on_answer("bea")()
    ending.join(5)
    assert not ending.is_alive()


def test_a_site_that_was_away_is_not_waited_for(monkeypatch):
    news = ClosingMessage("first")
    news.on_answer("ada")
    monkeypatch.setattr("mamfed_server.run.closing_message.RECENT_SECONDS", 0.0)
    started = time.monotonic()
    news.end(RunState.FAILED)
    assert time.monotonic() - started < 1
