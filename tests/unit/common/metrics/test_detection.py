import numpy as np
import pytest
from tests.unit.common.maps import map_of, mask, sure

from mamfed_common.metrics.detection import (
    MOST_CANDIDATES,
    auroc,
    detect,
    froc,
    regions_of,
    roc_area,
)
from mamfed_common.metrics.scores import score_image


def found(probability, truth):
    return detect(probability, regions_of(truth))


def scored(probability, truth):
    return score_image("x", probability, truth, 0.5)


def test_a_candidates_score_is_its_mean_probability():
    probability = map_of({(0, 0): 1.0, (0, 1): 0.5, (4, 4): 0.25, (5, 5): 0.75})
    detections = found(probability, mask((0, 0)))
    assert detections.hits == (0.75,)
    assert detections.false_alarms == (0.5,)


def test_pixels_below_the_candidate_threshold_make_no_candidate():
    assert found(map_of({(0, 0): 0.09}), mask((0, 0))) == ((0.0,), ())
    assert found(map_of({(0, 0): 0.11}), mask((0, 0))).hits == (pytest.approx(0.11),)


def test_a_candidate_that_covers_less_than_a_tenth_of_a_lesion_is_a_false_alarm():
    truth = np.ones((6, 6), bool)
    assert found(sure(*[(0, i) for i in range(3)]), truth) == ((0.0,), (1.0,))
    assert found(sure(*[(0, i) for i in range(4)]), truth) == ((1.0,), ())


def test_a_lesion_has_the_score_of_its_best_candidate():
    truth = mask((0, 0), (0, 1), (0, 2))
    detections = found(map_of({(0, 0): 0.5, (0, 2): 0.75}), truth)
    assert detections == ((0.75,), ())


def test_one_candidate_may_hit_two_lesions():
    truth = mask((0, 0), (0, 2))
    assert found(sure((0, 0), (0, 1), (0, 2)), truth) == ((1.0, 1.0), ())


def test_of_a_map_of_noise_the_strongest_candidates_are_kept():
    size = 2 * (MOST_CANDIDATES + 9)
    spots = {(0, 2 * i): 0.5 + i / 1000 for i in range(MOST_CANDIDATES + 9)}
    detections = found(map_of(spots, size), mask((0, 0), size=size))
    assert len(detections.false_alarms) == MOST_CANDIDATES
    assert detections.hits == (0.0,)  # the weakest spot is no candidate, on a lesion or not
    assert min(detections.false_alarms) == pytest.approx(0.509)


def test_the_froc_curve_counts_false_alarms_over_all_images_also_those_without_a_lesion():
    scores = [
        scored(map_of({(0, 0): 0.875, (4, 4): 0.5}), mask((0, 0), (2, 5))),
        scored(map_of({(0, 0): 0.625}), mask()),
    ]
    curve = froc(scores)
    assert (curve.images, curve.lesions) == (2, 2)
    points = list(zip(curve.false_positives_per_image, curve.sensitivity, strict=True))
    # From every score on: 0.5, 0.625, 0.875, and none at all.
    assert points == [(1.0, 0.5), (0.5, 0.5), (0.0, 0.5), (0.0, 0.0)]
    assert [curve.sensitivity_at(rate) for rate in (0.25, 0.5, 1, 2)] == [0.5] * 4


def test_the_weakest_candidate_counts_when_it_hits():
    scores = [scored(map_of({(0, 0): 0.25, (4, 4): 0.75}), mask((0, 0)))]
    curve = froc(scores)
    assert curve.sensitivity_at(1) == 1
    assert curve.sensitivity_at(0.75) == 0  # the false alarm, which is surer, comes first


def test_between_two_thresholds_sensitivity_is_interpolated():
    both = map_of({(0, 0): 0.5, (4, 4): 0.5})  # from (0, 0) to (1, 1) in one step
    assert froc([scored(both, mask((0, 0)))]).sensitivity_at(0.25) == 0.25


def test_sensitivity_is_zero_where_the_map_is_empty_and_unknown_without_a_lesion():
    assert froc([scored(sure(), mask((0, 0)))]).sensitivity_at(1) == 0
    assert froc([scored(sure((1, 1)), mask())]) is None
    assert froc([]) is None


def test_auroc_is_the_share_of_pairs_in_the_right_order_ties_counting_half():
    generator = np.random.default_rng(0)
    peaks = generator.integers(0, 8, 40) / 8
    truth = generator.random(40) < 0.4
    pairs = peaks[truth][:, None] - peaks[~truth][None, :]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert roc_area(np.array([peaks, truth], np.float64)) == pytest.approx(expected)


def test_there_is_no_auroc_where_one_class_is_missing():
    malignant = scored(sure((0, 0)), mask((0, 0)))
    other = scored(sure(), mask())
    assert auroc([malignant, malignant]) is None
    assert auroc([other]) is None
    assert auroc([]) is None
    assert auroc([malignant, other]) == 1
