"""Bars and histograms of a folder, against numbers worked out by hand."""

import numpy as np
import pytest

from mamfed_client.review.distributions import bars, grey_histograms, histogram, log_histogram


def test_a_histogram_has_round_edges_and_names_the_extremes():
    drawn = histogram("Height", {11: 1, 12: 2, 13: 2, 14: 9}, " px")

    assert drawn.heights == [0.5, 0, 1, *[0] * 13, 0.5]  # from 1 to 9.5 by 0.5
    assert drawn.ticks == [(0, "1 px"), (8 / 17, "5 px"), (1, "9.5 px")]
    caption = drawn.caption.replace("\N{NO-BREAK SPACE}", " ")
    assert caption == "4 images, median 2 px, range 1 px (row 11) to 9 px (row 14)"


def test_equal_values_need_no_drawing():
    assert histogram("Height", {2: 3328, 3: 3328}, " px").heights == []
    assert histogram("Height", {2: 3328, 3: 3328}, " px").caption == "2 images, all 3,328 px"
    assert histogram("Height", {}) is None
    assert log_histogram("Area", {}) is None


def test_a_logarithmic_histogram_has_four_bins_a_decade():
    drawn = log_histogram("Area", {2: 0.5, 3: 5, 4: 5.1, 5: 50}, " mm²")

    assert drawn.heights == [0, 0, 0.5, 0, 0, 0, 1, 0, 0, 0, 0.5, 0]
    assert [text for _, text in drawn.ticks] == ["0.1 mm²", "1 mm²", "10 mm²", "100 mm²"]
    assert [place for place, _ in drawn.ticks] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert log_histogram("Share", {2: 1e-9, 3: 1e-8}).heights == [1, 0, 0, 0]


def test_grey_levels_are_averaged_by_vendor_on_one_scale():
    flat, dark = np.full(4, 0.25), np.array([1.0, 0, 0, 0])

    aurora, borealis = grey_histograms({"Aurora": [flat, dark], "Borealis": [flat]})

    assert aurora.heights == pytest.approx([1, 0.2, 0.2, 0.2])
    assert borealis.heights == pytest.approx([0.4] * 4)
    assert (aurora.title, aurora.caption) == ("Aurora", "2 images")


def test_what_is_rare_is_joined_in_one_bar():
    counts = {f"vendor {n}": 10 for n in range(9)} | {"a": 6, "b": 4}

    rows = bars("Vendor", counts).rows

    assert rows[0] == ("vendor 0", 10, 0.1)
    assert rows[9:] == [("2 others", 10, 0.1)]
    assert bars("Vendor", {str(n): 1 for n in range(10)}).rows[9] == ("9", 1, 0.1)
