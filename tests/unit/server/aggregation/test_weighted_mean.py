from contextlib import nullcontext

import numpy as np
import pytest

from mamfed_server.aggregation.weighted_mean import BLOCK, average


def mean_of(arrays, weights):
    """Average arrays that lie in memory."""
    mean = np.empty_like(arrays[0])
    shares = [weight / sum(weights) for weight in weights]
    average(mean, [lambda a, b, x=x: nullcontext(x[a:b]) for x in arrays], shares)
    return mean


def test_each_update_has_its_share_of_the_mean():
    arrays = [np.array([1, 2], np.float32), np.array([5, 6], np.float32)]
    assert mean_of(arrays, [1, 3]).tolist() == [4.0, 5.0]


@pytest.mark.parametrize("length", [0, 1, 50, BLOCK, 2 * BLOCK + 3])
def test_many_updates_agree_with_numpys_average(length):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((5, length)).astype(np.float32)
    weights = rng.integers(1, 400, 5).tolist()
    expected = np.average(arrays.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean_of(arrays, weights), expected, atol=1e-6)


def test_each_value_is_the_weighted_sum_in_float32_written_out():
    a, b, c = (np.float32(x) for x in (0.1, 0.7, -0.3))
    shares = [np.float32(count / 9) for count in (3, 2, 4)]
    expected = (a * shares[0] + b * shares[1]) + c * shares[2]
    assert mean_of([np.array([x]) for x in (a, b, c)], [3, 2, 4])[0] == expected


def test_a_value_has_the_same_bits_wherever_it_lies():
    rng = np.random.default_rng(1)
    few = rng.standard_normal((3, 7)).astype(np.float32)
    many = np.tile(few, (1, BLOCK // 7 + 2))
    assert np.array_equal(
        mean_of(list(many), [5, 1, 9]), np.tile(mean_of(list(few), [5, 1, 9]), BLOCK // 7 + 2)
    )


def test_one_update_comes_back_bit_for_bit_and_is_not_shared():
    update = np.random.default_rng(2).random(100, np.float32)
    mean = mean_of([update], [7])
    assert np.array_equal(mean, update)
    assert not np.shares_memory(mean, update)


def test_equal_updates_come_back_up_to_rounding():
    update = np.random.default_rng(2).random(100, np.float32)
    np.testing.assert_allclose(mean_of([update] * 50, [7, 1] * 25), update, rtol=1e-6)


def test_counters_keep_their_dtype_and_the_furthest_value():
    mean = mean_of([np.array([5, 1]), np.array([3, 2])], [1, 9])
    assert mean.dtype == np.int64
    assert mean.tolist() == [5, 2]


def test_values_at_the_end_of_float32_have_a_mean_and_make_no_noise():
    largest = np.full(1, np.finfo(np.float32).max)
    assert mean_of([largest, -largest], [1, 1]) == 0
    assert mean_of([largest] * 3, [1, 1, 1]) >= 0.999 * largest


def test_a_mean_of_nothing_is_our_own_mistake():
    with pytest.raises(AssertionError):
        average(np.empty(3, np.float32), [], [])
