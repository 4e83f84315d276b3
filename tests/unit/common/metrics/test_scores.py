import numpy as np
import pytest
from pydantic import ValidationError
from tests.unit.common.maps import map_of, mask, sure

from mamfed_common.metrics.explanation import RedrawnLesion
from mamfed_common.metrics.scores import dice, hausdorff95_mm, iou, score_image, summarise
from mamfed_common.metrics.site_score import THRESHOLDS, SiteScore


def test_dice_of_half_overlapping_masks_is_a_half_and_their_iou_a_third():
    halves = mask((0, 0), (0, 1)), mask((0, 1), (0, 2))
    assert dice(*halves) == pytest.approx(1 / 2)
    assert iou(*halves) == pytest.approx(1 / 3)


@pytest.mark.parametrize("overlap", [dice, iou])
def test_the_overlap_of_two_empty_masks_is_one_and_of_one_empty_mask_zero(overlap):
    assert overlap(mask(), mask()) == 1
    assert overlap(mask(), mask((1, 1))) == 0
    assert overlap(mask((1, 1)), mask()) == 0


def test_two_lesions_one_of_them_marked_count_as_two_and_one_found():
    truth = mask((0, 0), (5, 5))
    score = score_image("x", sure((0, 0), (3, 3)), truth, 0.5)
    assert (score.lesions, score.lesions_found) == (2, 1)
    assert (score.lesion_pixels, score.predicted_pixels) == (2, 2)
    assert [lesion.dice for lesion in score.lesion_scores] == [1, 0]


def test_a_lesion_is_found_only_when_a_tenth_of_it_is_marked():
    truth = np.ones((6, 6), bool)
    three, four = sure(*[(0, i) for i in range(3)]), sure(*[(0, i) for i in range(4)])
    assert score_image("x", three, truth, 0.5).lesions_found == 0
    assert score_image("x", four, truth, 0.5).lesions_found == 1


def test_diagonal_neighbours_are_one_lesion():
    assert score_image("x", sure(), mask((1, 1), (2, 2)), 0.5).lesions == 1


def test_a_lesion_is_compared_with_the_whole_of_the_regions_that_touch_it_and_no_other():
    truth = mask((0, 0), (0, 1), (4, 4))
    marked = sure((0, 1), (0, 2), (1, 2), (3, 0))  # one region of 3 pixels, one far away
    first, second = score_image("x", marked, truth, 0.5).lesion_scores
    assert (first.pixels, first.found) == (2, True)
    assert first.dice == pytest.approx(2 * 1 / (2 + 3))
    assert (second.pixels, second.dice, second.found) == (1, 0, False)


def test_a_pixel_is_marked_from_the_threshold_on():
    probability = map_of({(0, 0): 0.5, (0, 1): 0.75, (0, 2): 0.25})
    assert score_image("x", probability, mask((0, 0)), 0.5).predicted_pixels == 2
    assert score_image("x", probability, mask((0, 0)), 0.8).predicted_pixels == 0


def test_the_peak_is_the_maps_maximum():
    score = score_image("x", map_of({(1, 1): 0.25, (4, 4): 0.75}), mask(), 0.5)
    assert score.peak == 0.75


@pytest.mark.parametrize("empty", [False, True])
def test_dice_at_every_threshold_is_monais_dice_of_the_pixels_from_there_on(empty):
    generator = np.random.default_rng(0)
    truth = np.zeros((9, 9), bool) if empty else generator.random((9, 9)) < 0.3
    # Tenths as float32 are not the tenths of float64: pixels right at a threshold must count.
    probability = (generator.integers(0, 10, (9, 9)) / np.float32(10)).astype(np.float32)
    score = score_image("x", probability, truth, 0.5)
    expected = [dice(probability >= threshold, truth) for threshold in THRESHOLDS]
    assert score.dice_at == pytest.approx(expected)
    assert score.dice == pytest.approx(score.dice_at[4])


def test_the_hausdorff_distance_is_in_millimetres():
    # Two single pixels, 3 rows and 4 columns apart: 5 pixels.
    assert hausdorff95_mm(mask((0, 0)), mask((3, 4)), 0.2) == pytest.approx(1.0)


def test_the_hausdorff_distance_leaves_out_the_farthest_twentieth():
    line = mask(*[(0, column) for column in range(40)], size=60)
    longer = mask(*[(0, column) for column in range(41)], size=60)
    far = mask(*[(0, column) for column in range(40)], (50, 0), size=60)
    assert hausdorff95_mm(longer, line, 1.0) == pytest.approx(0.0)
    assert hausdorff95_mm(far, line, 1.0) == pytest.approx(0.0)


def test_there_is_no_hausdorff_distance_without_a_pixel_size_or_without_both_masks():
    assert score_image("x", sure((0, 0)), mask((3, 4)), 0.5).hausdorff95_mm is None
    assert score_image("x", sure(), mask((3, 4)), 0.5, 0.2).hausdorff95_mm is None
    assert score_image("x", sure((0, 0)), mask(), 0.5, 0.2).hausdorff95_mm is None
    found = score_image("x", sure((0, 0)), mask((3, 4)), 0.5, 0.2).hausdorff95_mm
    assert found == pytest.approx(1.0)


def test_means_keep_images_with_and_without_malignancy_apart():
    scores = [
        score_image("a", sure((0, 0)), mask((0, 0)), 0.5),
        score_image("b", sure(), mask((0, 0)), 0.5),
        score_image("c", sure((1, 1), (2, 2), (3, 3)), mask(), 0.5),
    ]
    summary = summarise(scores)
    assert (summary.images, summary.dice, summary.iou) == (2, 0.5, 0.5)
    assert (summary.images_without_malignancy, summary.false_positive_pixels) == (1, 3.0)
    assert summary.sensitivity == 0.5
    assert summary.dice_at == (0.5,) * 9
    # Peaks: 1 and 0 with malignancy, 1 without: one pair is tied, one is the wrong way round.
    assert summary.auroc == 0.25
    # One false alarm in three images, as sure as the hit: up to a rate of 1/3, one of two lesions.
    assert summary.sensitivity_at_1 == 0.5


def test_redrawn_lesions_are_counted_over_images_and_their_gap_is_a_mean_over_lesions():
    gaps = [
        (RedrawnLesion(True, 0.1), RedrawnLesion(False, 0.5)),
        (RedrawnLesion(True, 0.0),),
        None,
    ]
    scores = [
        score_image(str(index), sure((0, 0)), mask((0, 0)), 0.5, redrawn=redrawn)
        for index, redrawn in enumerate(gaps)
    ]
    summary = summarise(scores)
    assert (summary.lesions_redrawn, summary.redrawn_as_tissue) == (3, 2)
    assert summary.redrawn_minus_ring == pytest.approx(0.2)
    none_found = summarise([score_image("x", sure(), mask((0, 0)), 0.5, redrawn=())])
    assert (none_found.lesions_redrawn, none_found.redrawn_as_tissue) == (0, 0)
    assert none_found.redrawn_minus_ring is None
    no_painter = summarise(scores[2:])
    assert (no_painter.lesions_redrawn, no_painter.redrawn_as_tissue) == (None, None)


def test_no_image_gives_no_mean_instead_of_zero():
    summary = summarise([])
    assert (summary.images, summary.dice, summary.sensitivity) == (0, None, None)
    assert (summary.iou, summary.auroc, summary.sensitivity_at_1) == (None, None, None)
    assert (summary.false_positive_pixels, summary.dice_at) == (None, None)


def test_a_sites_score_is_read_back_from_its_json_as_it_was():
    summary = summarise([score_image("a", sure((0, 0)), mask((0, 0)), 0.5)])
    assert SiteScore.model_validate_json(summary.model_dump_json()) == summary


@pytest.mark.parametrize(
    "wrong", [{"dice_at": [0.5]}, {"dice_at": [2.0] * 9}, {"auroc": 1.5}, {"redrawn_minus_ring": 2}]
)
def test_a_sites_score_refuses_what_no_site_can_measure(wrong):
    values = summarise([]).model_dump() | wrong
    with pytest.raises(ValidationError):
        SiteScore.model_validate(values)
