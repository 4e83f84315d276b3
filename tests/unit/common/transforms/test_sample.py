import numpy as np
import pytest

from mamfed_common.transforms.sample import window_of


def test_a_window_holds_all_that_is_true_and_no_more():
    plane = np.zeros((7, 9), bool)
    plane[2, 3] = plane[5, 4] = True
    assert window_of(plane) == (slice(2, 6), slice(3, 5))
    assert window_of(plane[::-1]) == (slice(1, 5), slice(3, 5))


@pytest.mark.parametrize("shape", [(4, 4), (1, 1)])
def test_the_window_of_nothing_is_empty(shape):
    plane = np.zeros(shape, bool)
    assert plane[window_of(plane)].size == 0
