"""Images are pulled within the hours, and no faster than allowed."""

from datetime import datetime, timedelta

import pytest

from mamfed_client.archive.throttle import Throttle
from mamfed_client.site.hours import seconds_until_open


class Clock:
    def __init__(self, start="2026-11-30T12:00:00"):
        self.seconds = 0.0
        self.start = datetime.fromisoformat(start)

    def now(self):
        return self.start + timedelta(seconds=self.seconds)

    def clock(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


def throttle(clock, hours=None, per_minute=60.0, megabytes=None, said=None):
    return Throttle(hours, per_minute, megabytes, (said or []).append, clock.now, clock.clock,
                    clock.sleep)  # fmt: skip


def test_images_keep_their_distance():
    clock = Clock()
    pace = throttle(clock, per_minute=30)
    for _ in range(4):
        pace.wait()
        clock.sleep(0.5)
        pace.pulled(10)
    assert clock.seconds == pytest.approx(6.5)


def test_large_images_wait_for_the_bandwidth():
    clock = Clock()
    pace = throttle(clock, per_minute=6000, megabytes=60)
    for _ in range(2):
        pace.wait()
        pace.pulled(30_000_000)
    assert clock.seconds == pytest.approx(30)


def test_it_waits_for_the_hours_and_says_so_once():
    clock, said = Clock("2026-11-30T12:00:00"), []
    pace = Throttle("20:00-06:00", 60, None, said.append, clock.now, clock.clock, clock.sleep)
    pace.wait()
    assert clock.now() == datetime(2026, 11, 30, 20)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("at", "hours", "left"),
    [
        ("19:59", "20:00-06:00", 60),
        ("20:00", "20:00-06:00", 0),
        ("05:59", "20:00-06:00", 0),
        ("06:00", "20:00-06:00", 14 * 3600),
        ("23:00", "08:00-18:00", 9 * 3600),
        ("12:00", None, 0),
    ],
)
def test_the_wait_until_the_hours(at, hours, left):
    assert seconds_until_open(hours, datetime.fromisoformat(f"2026-11-30T{at}")) == left
