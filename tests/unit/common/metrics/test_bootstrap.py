import numpy as np
import pytest

from mamfed_common.metrics.bootstrap import (
    Group,
    mean,
    mean_of_groups,
    paired_difference,
    patient_bootstrap,
)


def plain_mean(values):
    return float(np.mean(values))


def test_the_value_is_of_the_images_as_they_are():
    interval = patient_bootstrap(["a", "a", "b"], np.array([1.0, 2.0, 6.0]))
    assert interval.value == 3.0
    assert (interval.patients, interval.images) == (2, 3)


def test_a_patients_images_are_drawn_together():
    # Two patients give four equally likely pairs: means 0, 0.5, 0.5 and 1, however many images.
    patients, values = ["a"] * 50 + ["b"] * 50, np.array([0.0] * 50 + [1.0] * 50)
    interval = patient_bootstrap(patients, values)
    assert (interval.low, interval.high) == (0, 1)
    by_image = patient_bootstrap(range(100), values)
    assert by_image.low > 0.35
    assert by_image.high < 0.65


def test_patients_with_more_images_weigh_more():
    # Drawn: a a, a b, b a, b b -> means 0, 1/4, 1/4, 1.
    seen = set()
    patient_bootstrap(
        ["a", "a", "a", "b"],
        np.array([0.0, 0.0, 0.0, 1.0]),
        lambda values: seen.add(round(float(values.mean()), 9)) or 0.0,
        resamples=100,
    )
    assert seen == {0.0, 0.25, 1.0}


def test_the_interval_is_that_of_a_normal_mean():
    values = np.random.default_rng(1).normal(0, 1, 400)
    interval = patient_bootstrap(range(400), values, resamples=4000)
    error = values.std() / 20
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)


def test_the_fast_way_for_means_gives_what_the_loop_gives():
    generator = np.random.default_rng(2)
    values, patients = generator.random((3, 4, 20)), generator.integers(0, 7, 20).tolist()
    fast = patient_bootstrap(patients, values, mean, resamples=200, seed=5)
    slow = patient_bootstrap(patients, values, plain_mean, resamples=200, seed=5)
    assert fast == pytest.approx(slow)


def test_a_statistic_sees_the_leading_axes():
    values = np.random.default_rng(3).random((2, 5, 12))

    def best_epoch(resampled):
        assert resampled.shape == (2, 5, 12)
        return float(resampled.mean(axis=2).max(axis=1).mean())

    interval = patient_bootstrap(range(12), values, best_epoch, resamples=100)
    assert interval.low < interval.value < interval.high


def test_a_difference_is_drawn_with_the_same_patients_for_both():
    values = np.random.default_rng(4).random(30)
    interval = paired_difference(range(30), values, values + 0.125)
    assert interval == pytest.approx((0.125, 0.125, 0.125, 30, 30))
    apart = paired_difference(range(30), values, values[::-1])
    assert apart.high - apart.low > 0.1


def test_one_patient_says_nothing_about_others():
    interval = patient_bootstrap(["a", "a"], np.array([0.0, 1.0]))
    assert interval == (0.5, None, None, 1, 2)


def test_resamples_without_a_figure_are_left_out():
    def only_with_a_one(values):
        return float(values.sum()) if values.any() else float("nan")

    interval = patient_bootstrap(range(3), np.array([0.0, 0.0, 1.0]), only_with_a_one)
    assert (interval.low, interval.high) == (1, 3)
    nothing = patient_bootstrap(range(3), np.zeros(3), only_with_a_one)
    assert (nothing.low, nothing.high) == (None, None)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = np.random.default_rng(6).random(25)
    first = patient_bootstrap(range(25), values)
    assert patient_bootstrap(range(25), values) == first
    assert patient_bootstrap(range(25), values, seed=1) != first


def test_no_image_and_an_image_without_a_patient_are_refused():
    with pytest.raises(ValueError, match="no image"):
        patient_bootstrap([], np.array([]))
    with pytest.raises(ValueError, match="3"):
        patient_bootstrap(["a", "b"], np.zeros(3))


def test_the_mean_of_groups_counts_each_once_and_draws_within_them():
    """A site of 40 images at 0 and one of 4 at 1: half, and no draw moves it."""
    flat = [Group(range(40), np.zeros(40)), Group(range(4), np.ones(4))]
    assert mean_of_groups(flat) == (0.5, 0.5, 0.5, 44, 44)
    values = np.random.default_rng(5).random((3, 30))
    one = mean_of_groups([Group(range(30), values)])
    assert one == patient_bootstrap(range(30), values)
    two = mean_of_groups([Group(range(30), values), Group(range(30), values)])
    assert two.value == pytest.approx(one.value)
    assert 0.6 < (two.high - two.low) / (one.high - one.low) < 0.82, "1 / sqrt(2), drawn apart"
    with pytest.raises(ValueError, match="no group"):
        mean_of_groups([])
