"""How numbers read in sentences."""

import pytest

from mamfed_common.runtime.wording import counted, size, span


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (1, ("message",), "1 message"),
        (0, ("message",), "0 messages"),
        (12345, ("image",), "12,345 images"),
        (1, ("box", "boxes"), "1 box"),
        (2, ("box", "boxes"), "2 boxes"),
        (1, ("site is", "sites are"), "1 site is"),
        (3, ("site is", "sites are"), "3 sites are"),
    ],
)
def test_one_thing_is_told_from_several(count, words, said):
    assert counted(count, *words) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 seconds"),
        (0.01, "less than 0.1 seconds"),
        (0.3, "0.3 seconds"),
        (1.0, "1 second"),
        (7.46, "7.5 seconds"),
        (9.97, "10 seconds"),
        (59.7, "1 minute"),
        (60.0, "1 minute"),
        (75.0, "75 seconds"),
        (111.0, "1 minute 51 seconds"),
        (119.8, "2 minutes"),
        (600.0, "10 minutes"),  # 0.166667 h
        (630.0, "10 minutes"),
        (5400.0, "1 hour 30 minutes"),
        (43200.0, "12 hours"),
        (3599.9, "1 hour"),
        (86400.0, "24 hours"),
        (200000.0, "2 days 8 hours"),
    ],
)
def test_a_span_of_time_is_told_in_the_units_that_people_use(seconds, said):
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5_700_000, "5.7 MB"),
        (2_000_000_000, "2,000.0 MB"),
    ],
)
def test_a_little_data_is_not_told_as_none(count, said):
    assert size(count) == said
