import numpy as np
import pytest

from mamfed_client.imaging.geometry import Box
from mamfed_client.prediction.lesions import MOST_LESIONS, mark


def field_of(*blobs):
    """Probability 0.05 but for some rectangles: rows, columns, probability."""
    probability = np.full((40, 50), 0.05, np.float32)
    for rows, columns, value in blobs:
        probability[rows, columns] = value
    return probability


def test_regions_are_measured_on_the_files_grid():
    probability = field_of((slice(10, 14), slice(20, 26), 0.6))
    probability[11, 22] = 0.9
    found = mark(probability, 0.5, spacing_mm=0.2)
    (lesion,) = found.lesions
    assert lesion.box == Box(10, 14, 20, 26)
    assert (lesion.centre_row, lesion.centre_column) == (11.5, 22.5)
    assert lesion.pixels == 24
    assert lesion.area_mm2 == pytest.approx(24 * 0.04)
    assert lesion.peak == pytest.approx(0.9)
    assert lesion.score == pytest.approx((23 * 0.6 + 0.9) / 24)
    assert found.mask.sum() == 24


def test_the_strongest_comes_first_and_corners_connect():
    probability = field_of(
        (slice(2, 4), slice(2, 4), 0.6), (slice(4, 6), slice(4, 6), 0.6), (30, 30, 0.8)
    )
    scores = [
        (lesion.pixels, round(lesion.score, 3)) for lesion in mark(probability, 0.5, None).lesions
    ]
    assert scores == [(1, 0.8), (8, 0.6)]


def test_a_pixel_at_the_threshold_is_marked_and_one_below_is_not():
    probability = np.float32([[0.5, 0.499]])
    assert mark(probability, 0.5, None).mask.tolist() == [[True, False]]


def test_without_spacing_there_is_no_area_in_millimetres():
    (lesion,) = mark(field_of((3, 3, 0.9)), 0.5, None).lesions
    assert lesion.area_mm2 is None


def test_noise_is_not_listed_without_end_but_counted():
    probability = np.zeros((60, 60), np.float32)
    probability[::3, ::3] = np.linspace(0.6, 0.9, 400).reshape(20, 20)
    found = mark(probability, 0.5, None)
    assert len(found.lesions) == MOST_LESIONS
    assert found.left_out == 400 - MOST_LESIONS
    assert found.lesions[-1].score > 0.8
    assert found.mask.sum() == 400


def test_nothing_is_found_where_nothing_is():
    found = mark(field_of(), 0.5, 0.1)
    assert (found.lesions, found.left_out, found.mask.any()) == ((), 0, False)
