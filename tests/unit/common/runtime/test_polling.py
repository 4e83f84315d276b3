"""Pauses between looks."""

import pytest

from mamfed_common.runtime.polling import pause_seconds


@pytest.mark.parametrize(
    ("waited", "seconds"), [(0, 0.02), (0.1, 0.02), (1, 0.1), (7, 0.7), (60, 2), (float("inf"), 2)]
)
def test_a_pause_is_a_tenth_of_the_wait_within_bounds(waited, seconds):
    assert pause_seconds(waited, longest=2) == pytest.approx(seconds)


def test_an_hour_costs_few_more_looks_than_a_minute():
    def looks(seconds):
        waited, count = 0.0, 0
        while waited < seconds:
            waited, count = waited + pause_seconds(waited, longest=60), count + 1
        return count

    # 10 to 0.2 s, then log(t / 0.2) / log(1.1); from 600 s on, one a minute.
    assert looks(60) == 10 + 60
    assert looks(3600) == 10 + 85 + 50
