import pytest

from mamfed_common.metrics.small_numbers import cautions, few_patients, is_few


def test_a_mean_over_unlike_sites_says_what_it_counts_alike():
    assert cautions({"cesm": 41, "mias": 3, "none": 0}) == [
        "Results over fewer than 10 images: mias (3 images).",
        "The mean over sites gives mias with 3 images the same weight as cesm with 41 images.",
    ]


@pytest.mark.parametrize(
    ("images", "lines"),
    [
        ({"a": 41, "b": 30}, 0),
        ({"a": 410, "b": 30}, 1),
        ({"a": 3}, 1),
        ({"a": 3, "b": 3}, 1),
        ({}, 0),
        ({"a": 0}, 0),
    ],
)
def test_only_what_is_uneven_or_small_is_cautioned(images, lines):
    assert len(cautions(images)) == lines


def test_few():
    assert (few_patients(9), few_patients(10), few_patients(None)) == (True, False, False)
    assert (is_few(9), is_few(10), is_few(10, 9), is_few(10, 10)) == (True, False, True, False)
