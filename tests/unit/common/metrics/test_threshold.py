"""A threshold is moved only as far as a few images can tell."""

import pytest

from mamfed_common.metrics.threshold import nearest_threshold

RISING = (0.30, 0.34, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58, 0.62)


@pytest.mark.parametrize(
    ("dice_at", "images", "expected"),
    [
        (RISING, 1, 0.5),  # within 0.25 of 0.62
        (RISING, 2, 0.5),  # within 0.177
        (RISING, 4, 0.6),  # within 0.125
        (RISING, 100, 0.9),  # within 0.025
        (RISING[::-1], 16, 0.2),  # within 0.0625
        ((0.0,) * 9, 50, 0.5),
        ((0.1, 0.1, 0.1, 0.5, 0.1, 0.6, 0.1, 0.1, 0.1), 4, 0.6),  # equally near: the better one
        ((0.1, 0.1, 0.1, 0.6, 0.1, 0.5, 0.1, 0.1, 0.1), 4, 0.4),
    ],
)
def test_the_threshold_nearest_to_one_half_that_is_as_good_as_the_best(dice_at, images, expected):
    assert nearest_threshold(dice_at, images) == expected
