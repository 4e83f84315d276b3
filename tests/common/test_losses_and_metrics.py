import numpy as np
import pytest
import torch

from mamfed_common.losses import LossConfig, segmentation_loss
from mamfed_common.metrics import dice, score_image, summarise


def mask(*pixels: tuple[int, int], size: int = 6) -> np.ndarray:
    image = np.zeros((size, size), bool)
    for row, column in pixels:
        image[row, column] = True
    return image


def test_dice_of_half_overlapping_masks_is_a_half():
    assert dice(mask((0, 0), (0, 1)), mask((0, 1), (0, 2))) == pytest.approx(0.5)


def test_dice_of_two_empty_masks_is_one_and_of_one_empty_mask_zero():
    assert dice(mask(), mask()) == 1
    assert dice(mask(), mask((1, 1))) == 0
    assert dice(mask((1, 1)), mask()) == 0


def test_two_lesions_one_of_them_marked_count_as_two_and_one_found():
    truth = mask((0, 0), (5, 5))
    score = score_image("x", mask((0, 0), (3, 3)), truth)
    assert (score.lesions, score.lesions_found) == (2, 1)
    assert (score.lesion_pixels, score.predicted_pixels) == (2, 2)


def test_a_lesion_is_found_only_when_a_tenth_of_it_is_marked():
    truth = np.ones((6, 6), bool)
    assert score_image("x", mask(*[(0, i) for i in range(3)]), truth).lesions_found == 0
    assert score_image("x", mask(*[(0, i) for i in range(4)]), truth).lesions_found == 1


def test_diagonal_neighbours_are_one_lesion():
    assert score_image("x", mask(), mask((1, 1), (2, 2))).lesions == 1


def test_means_keep_images_with_and_without_malignancy_apart():
    scores = [
        score_image("a", mask((0, 0)), mask((0, 0))),
        score_image("b", mask(), mask((0, 0))),
        score_image("c", mask((1, 1), (2, 2), (3, 3)), mask()),
    ]
    summary = summarise(scores)
    assert (summary.images, summary.dice) == (2, 0.5)
    assert (summary.images_without_malignancy, summary.false_positive_pixels) == (1, 3.0)
    assert summary.sensitivity == 0.5


def test_no_image_gives_no_mean_instead_of_zero():
    summary = summarise([])
    assert (summary.images, summary.dice, summary.sensitivity) == (0, None, None)
    assert summary.false_positive_pixels is None


def test_the_segmentation_loss_is_dice_and_weighted_cross_entropy():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
    target = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    p = logits.sigmoid()
    expected_dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    bce = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    expected = expected_dice + LossConfig().cross_entropy * bce
    torch.testing.assert_close(segmentation_loss(LossConfig())(logits, target), expected)


def test_an_empty_mask_has_a_finite_loss_that_falls_with_the_prediction():
    target = torch.zeros(1, 1, 4, 4)
    loss = segmentation_loss(LossConfig())
    low, high = loss(torch.full_like(target, -5), target), loss(torch.full_like(target, 5), target)
    assert torch.isfinite(low)
    assert low < high
