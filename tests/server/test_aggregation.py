import numpy as np
import pytest
import torch

from mamfed_server.aggregation import RunningMean


def test_the_mean_is_weighted_by_examples():
    mean = RunningMean()
    mean.add({"w": torch.tensor([1.0, 2.0])}, 1)
    mean.add({"w": torch.tensor([5.0, 6.0])}, 3)
    assert mean.result()["w"].tolist() == [4.0, 5.0]
    assert (mean.total_weight, mean.updates) == (4, 2)


def test_many_updates_agree_with_numpys_average():
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((20, 50)).astype(np.float32)
    weights = rng.integers(1, 400, 20)
    mean = RunningMean()
    for array, weight in zip(arrays, weights, strict=True):
        mean.add({"w": torch.from_numpy(array)}, int(weight))
    expected = np.average(arrays.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean.result()["w"].numpy(), expected, atol=1e-6)


def test_one_update_comes_back_bit_for_bit_and_is_not_shared():
    update = {"w": torch.rand(100)}
    mean = RunningMean()
    mean.add(update, 7)
    assert torch.equal(mean.result()["w"], update["w"])
    mean.add({"w": torch.zeros(100)}, 7)
    assert update["w"].sum() > 1


def test_counters_keep_their_dtype_and_the_furthest_value():
    mean = RunningMean()
    mean.add({"n": torch.tensor(5)}, 1)
    mean.add({"n": torch.tensor(3)}, 9)
    assert mean.result()["n"].dtype == torch.int64
    assert mean.result()["n"].item() == 5


def test_a_mean_of_nothing_is_our_own_mistake():
    with pytest.raises(AssertionError):
        RunningMean().result()
