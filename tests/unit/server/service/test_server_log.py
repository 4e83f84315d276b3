"""What an attacker sends stands in one bounded line of the log."""

import logging
import sys

import pytest

from mamfed_common.runtime.wording import CUT, printable
from mamfed_server.run_folder.event_log import as_log_line, in_words
from mamfed_server.service.server_log import (
    LINE_CHARACTERS,
    LINES_PER_WINDOW,
    WINDOW_SECONDS,
    FloodFilter,
    LineFormatter,
)


def record(text, *args, error=None, line=1):
    return logging.LogRecord("flwr", logging.ERROR, "place.py", line, text, args, error)


def test_line_feeds_and_control_characters_are_escaped():
    line = LineFormatter().format(record("hash %s", "a\n2030-01-01 INFO forged\x1b[2J\r\u2028é"))
    assert "\n" not in line
    assert line.endswith(r"ERROR hash a\n2030-01-01 INFO forged\x1b[2J\r\u2028é")


def test_a_line_has_a_bounded_length():
    line = LineFormatter().format(record("x" * 10**6))
    assert len(line) == LINE_CHARACTERS + len(CUT)
    assert len(printable("\n" * 10**6, LINE_CHARACTERS)) < 3 * LINE_CHARACTERS


def test_an_event_stands_in_one_line_of_the_journal():
    event = {
        "time": "2026-11-30T00:00:00+00:00",
        "event": "refused",
        "reason": "a\nfinished\x1b[2J",
    }
    assert as_log_line(event) == ("2026-11-30T00:00:00+00:00 refused reason=a\\nfinished\\x1b[2J")
    assert in_words(event) == "refused: reason a\\nfinished\\x1b[2J"


def test_each_line_of_a_traceback_is_marked():
    try:
        raise ValueError("bad id: a\n2030-01-01 INFO forged")
    except ValueError:
        text = LineFormatter().format(record("failed", error=sys.exc_info()))
    first, *others = text.split("\n")
    assert first.endswith("ERROR failed")
    assert all(line.startswith("| ") for line in others)
    assert "| 2030-01-01 INFO forged" in others


@pytest.mark.parametrize("other", [record("y", line=2)])
def test_a_flood_from_one_place_leaves_room_for_others(other):
    now = [0.0]
    flood = FloodFilter(lambda: now[0])
    written = [flood.filter(record("x %d", number)) for number in range(1000)]
    assert sum(written) == LINES_PER_WINDOW
    assert flood.filter(other)
    now[0] = WINDOW_SECONDS + 1
    last = record("x %d", 7)
    assert flood.filter(last)
    assert last.getMessage() == f"x 7 (and {1000 - LINES_PER_WINDOW} like it were left out)"
