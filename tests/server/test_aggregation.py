from contextlib import nullcontext

import numpy as np
import pytest

from mamfed_server.aggregation import BLOCK, average


def mean_of(arrays, weights):
    """Average arrays that lie in memory."""
    mean = np.empty_like(arrays[0])
    average(mean, [lambda a, b, x=x: nullcontext(x[a:b]) for x in arrays], weights)
    return mean


def test_the_mean_is_weighted_by_examples():
    arrays = [np.array([1, 2], np.float32), np.array([5, 6], np.float32)]
    assert mean_of(arrays, [1, 3]).tolist() == [4.0, 5.0]


@pytest.mark.parametrize("length", [0, 1, 50, BLOCK, 2 * BLOCK + 3])
def test_many_updates_agree_with_numpys_average(length):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((5, length)).astype(np.float32)
    weights = rng.integers(1, 400, 5).tolist()
    expected = np.average(arrays.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean_of(arrays, weights), expected, atol=1e-6)


def test_each_value_is_the_running_mean_in_float32_written_out():
    a, b, c = (np.float32(x) for x in (0.1, 0.7, -0.3))
    first = a + np.float32(2 / 5) * (b - a)
    expected = first + np.float32(4 / 9) * (c - first)
    assert mean_of([np.array([x]) for x in (a, b, c)], [3, 2, 4])[0] == expected


def test_a_value_has_the_same_bits_wherever_it_lies():
    rng = np.random.default_rng(1)
    few = rng.standard_normal((3, 7)).astype(np.float32)
    many = np.tile(few, (1, BLOCK // 7 + 2))
    assert np.array_equal(
        mean_of(list(many), [5, 1, 9]), np.tile(mean_of(list(few), [5, 1, 9]), BLOCK // 7 + 2)
    )


def test_equal_updates_come_back_bit_for_bit_and_are_not_shared():
    update = np.random.default_rng(2).random(100, np.float32)
    assert np.array_equal(mean_of([update], [7]), update)
    mean = mean_of([update, update, update], [7, 1, 90])
    assert np.array_equal(mean, update)
    assert not np.shares_memory(mean, update)


def test_counters_keep_their_dtype_and_the_furthest_value():
    mean = mean_of([np.array([5, 1]), np.array([3, 2])], [1, 9])
    assert mean.dtype == np.int64
    assert mean.tolist() == [5, 2]


def test_values_that_differ_by_more_than_float32_holds_make_no_noise():
    far = [np.array([3e38], np.float32), np.array([-3e38], np.float32)]
    assert not np.isfinite(mean_of(far, [1, 1])).any()


def test_a_mean_of_nothing_is_our_own_mistake():
    with pytest.raises(AssertionError):
        average(np.empty(3, np.float32), [], [])
