"""Opening by a large disk is what OpenCV makes of it."""

import cv2
import numpy as np
import pytest

from mamfed_client.imaging.morphology import disk, opened


@pytest.mark.parametrize("diameter", [1, 2, 9, 20, 35])
@pytest.mark.parametrize("filled", [0.3, 0.9, 0.999])
def test_an_opening_is_opencvs_bit_for_bit_also_at_the_edges(diameter, filled):
    rng = np.random.default_rng(diameter)
    for height, width in rng.integers(1, 90, (8, 2)):
        values = (rng.random((height, width)) < filled).astype(np.uint8)
        expected = cv2.morphologyEx(values, cv2.MORPH_OPEN, disk(diameter))
        assert (opened(values, diameter) == expected).all()


def test_a_strip_thinner_than_the_disk_goes_and_a_square_stays():
    values = np.zeros((60, 60), np.uint8)
    values[5:55, 5:35] = 1
    values[20:40, 35:] = 1
    left = opened(values, 25)
    assert left[30, 20]
    assert not left[20:40, 45:].any()
