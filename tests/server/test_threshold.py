"""The threshold of the chosen round comes from its validation, by the mean over sites."""

import pytest

from mamfed_common.metrics import THRESHOLDS, SiteScore
from mamfed_server.selection import choose_threshold


def score(dice_at):
    return SiteScore(
        images=3,
        dice=0.5,
        lesions=None,
        lesions_found=None,
        images_without_malignancy=None,
        false_positive_pixels=None,
        dice_at=dice_at,
    )


def peak(at, height=0.6):
    return tuple(height if t == at else 0.1 for t in THRESHOLDS)


@pytest.mark.parametrize("best", [0.1, 0.3, 0.5, 0.9])
def test_one_site_chooses_its_best(best):
    assert choose_threshold({"a": score(peak(best))}) == best


def test_sites_choose_by_their_mean_whatever_their_size():
    big = score(peak(0.2, 0.9)).model_copy(update={"images": 1000})
    small = score(tuple(0.0 if t == 0.2 else 0.95 if t == 0.7 else 0.1 for t in THRESHOLDS))
    assert choose_threshold({"big": big, "small": small}) == 0.7


def test_of_equal_ones_the_nearest_to_a_half_wins():
    assert choose_threshold({"a": score((0.4,) * 9)}) == 0.5
    assert choose_threshold({"a": score((0.4, 0.4, 0.4, 0.4, 0.3, 0.4, 0.4, 0.4, 0.4))}) in (
        0.4,
        0.6,
    )


def test_a_site_that_says_nothing_does_not_count():
    assert choose_threshold({"a": score(None), "b": score(peak(0.4))}) == 0.4


@pytest.mark.parametrize("scores", [{}, {"a": score(None)}])
def test_without_any_the_plans_threshold_stays(scores):
    assert choose_threshold(scores) is None
