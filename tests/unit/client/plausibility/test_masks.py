"""Masks that can only be there by mistake."""

import cv2
import numpy as np
import pytest
from tests.unit.client.plausibility.conftest import disk, draw

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.rejections import FileRejected, Reason


@pytest.mark.parametrize("radius", [1, 5, 40, 90])
def test_a_finding_is_not_doubted(mask_judged, radius):
    assert mask_judged(disk(radius=radius)) == []


def test_a_finding_that_is_the_brightest_of_all_is_not_doubted(mask_judged):
    lesion = disk()

    assert mask_judged(lesion, np.where(lesion, 0.95, draw()[0])) == []


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.ones((512, 400), bool), "100% of the image"),
        (~disk(), "98% of the image; is it inverted"),
        (draw()[1], "it outlines the breast"),
        (draw()[1] & ~disk(radius=20), "it outlines the breast"),
        (~draw()[1], "of the image; is it inverted|what lies around"),
    ],
    ids=["all", "inverted", "breast", "breast without lesion", "background"],
)
def test_what_is_certainly_no_finding_is_refused(mask_judged, mask, said):
    with pytest.raises(FileRejected, match=said) as caught:
        mask_judged(mask)
    assert caught.value.reason is Reason.IMPLAUSIBLE_MASK


def test_the_surroundings_of_a_large_breast_are_refused(mask_judged):
    levels, breast = (layer[:, :260] for layer in draw())

    with pytest.raises(FileRejected, match="it marks what lies around the breast"):
        mask_judged(~breast, levels)


def test_a_mask_of_most_of_the_breast_is_doubted(mask_judged):
    upper = draw()[1].copy()
    upper[:180] = False

    assert mask_judged(upper) == [Doubt.MASK_LARGE]


@pytest.mark.parametrize("column", [330, 350])
def test_a_mask_beside_the_breast_is_doubted(mask_judged, column):
    assert Doubt.MASK_OUTSIDE in mask_judged(disk(120, column))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_a_threshold_of_the_image_is_doubted(mask_judged, share):
    levels, breast = draw()

    mask = (levels > np.quantile(levels[breast], 1 - share)) & breast

    assert Doubt.MASK_THRESHOLD in mask_judged(mask)


def test_hundreds_of_specks_are_doubted_unless_each_was_drawn(mask_judged):
    specks = np.zeros((512, 400), bool)
    specks[200:320:10, 60:180:10] = True

    assert mask_judged(specks) == [Doubt.MASK_SPECKS]
    assert mask_judged(specks, outlines=144) == []


def test_an_outline_that_was_not_filled_is_doubted(mask_judged):
    ring = np.zeros((512, 400), np.uint8)
    cv2.circle(ring, (120, 256), 50, 1, thickness=2)

    assert mask_judged(ring > 0) == [Doubt.MASK_RING]


def test_a_mask_that_is_a_box_is_doubted(mask_judged):
    box = np.zeros((512, 400), bool)
    box[200:280, 90:150] = True

    assert mask_judged(box) == [Doubt.MASK_BOX]


def test_a_single_pixel_of_a_very_large_image_is_not_doubted(mask_judged):
    levels = np.kron(draw()[0], np.ones((14, 14)))
    mask = np.zeros(levels.shape, bool)
    mask[3500, 1000] = True

    assert mask_judged(mask, levels) == []
