"""Images that can only be there by mistake."""

import cv2
import numpy as np
import pytest
from tests.unit.client.plausibility.conftest import draw, mammogram

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.preprocess import analyse
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility import judge_image


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("seed", range(3))
def test_a_breast_is_not_doubted_either_way_round(judged, view, seed):
    levels, _ = draw(view, seed)

    assert judged(levels, view) == judged(levels[:, ::-1], view) == []


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_breast_much_of_which_is_white_is_doubted(judged, share):
    levels, breast = draw()

    white = np.quantile(levels[breast], 1 - share)

    assert Doubt.SATURATED in judged(levels / white)


def test_a_breast_much_of_which_is_black_is_doubted(judged):
    levels, breast = draw()
    dark = np.quantile(levels[breast], 0.5)

    assert Doubt.SATURATED in judged(np.where(breast, np.maximum(levels, dark), 0))


def test_a_breast_nearly_all_of_which_is_one_grey_is_refused(judged):
    levels, breast = draw()
    white = np.quantile(levels[breast], 0.05)

    with pytest.raises(FileRejected, match=r"9\d% of the breast at one grey level") as caught:
        judged(levels / white)
    assert caught.value.reason is Reason.IMPLAUSIBLE_IMAGE


def test_an_image_of_few_levels_in_a_corner_of_the_range_is_not_saturated(judged):
    assert judged(draw()[0] / 16) == []


def test_an_inverted_image_is_refused_for_its_bright_background(judged):
    with pytest.raises(FileRejected, match="of the breast at one grey level"):
        judged(1 - draw()[0])


@pytest.mark.parametrize(("side", "expected"), [(64, [Doubt.IMAGE_SMALL]), (256, [])])
def test_a_thumbnail_is_doubted(side, expected, judged):
    small = cv2.resize(draw()[0], (side * 400 // 512, side), interpolation=cv2.INTER_AREA)

    assert [d for d in judged(small) if d is Doubt.IMAGE_SMALL] == expected


@pytest.mark.parametrize("side", [8, 63])
def test_an_icon_is_refused(side):
    icon = mammogram(cv2.resize(draw()[0], (side, side), interpolation=cv2.INTER_AREA))

    with pytest.raises(FileRejected, match=f"{side} x {side} pixels, an icon"):
        judge_image(icon, analyse(mammogram(draw()[0])))


def test_an_icon_that_was_enlarged_is_doubted(judged):
    icon = cv2.resize(draw()[0], (8, 8), interpolation=cv2.INTER_AREA)

    assert Doubt.SMOOTH in judged(cv2.resize(icon, (400, 512), interpolation=cv2.INTER_CUBIC))


def test_a_ramp_is_doubted(judged):
    assert Doubt.SMOOTH in judged(np.tile(np.linspace(0, 1, 400), (512, 1)))


def test_noise_is_doubted(judged):
    _, breast = draw()
    noise = np.random.default_rng(0).random((256, 200))
    grains = cv2.resize(noise, (400, 512), interpolation=cv2.INTER_NEAREST)

    assert Doubt.NOISE in judged(np.where(breast, grains, 0))
    assert Doubt.NOISE in judged(grains)


def test_a_piece_of_a_breast_is_doubted(judged):
    assert Doubt.NO_BACKGROUND in judged(draw()[0][160:360, 20:170])


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_a_breast_that_lies_is_doubted(judged, turns, view):
    assert judged(np.rot90(draw(view)[0], turns), view) == [Doubt.LYING]


def test_an_oblique_view_upside_down_is_doubted_other_views_cannot_be_told(judged):
    upright, _ = draw("MLO", width=280)

    assert judged(upright, "MLO") == judged(upright[::-1], "CC") == []
    assert judged(upright[::-1], "MLO") == [Doubt.UPSIDE_DOWN]


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("turned", [True, False], ids=["face to face", "back to back"])
def test_two_breasts_in_one_picture_are_doubted(judged, turned, view):
    one, other = draw(view, 1, width=230)[0], draw(view, 2, width=230)[0][:, ::-1]

    pair = (one, other) if turned else (other, one)

    assert judged(np.hstack(pair), view) == [Doubt.TWO_BREASTS]


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("stretch", [0.9, 1, 1.2])
def test_two_breasts_of_any_proportion_do_not_lie(judged, view, stretch):
    """Side by side they are wide, and their chest muscles make them straight above."""
    one, other = (
        draw(view, 1, width=280)[0][40:-40, :300],
        draw(view, 2, width=280)[0][40:-40, :300],
    )
    pair = np.hstack((other[:, ::-1], one))

    wide = cv2.resize(pair, (round(stretch * pair.shape[1]), pair.shape[0]))

    assert judged(wide, view) == [Doubt.TWO_BREASTS]


def test_two_breasts_whose_muscles_are_below_are_two_and_nothing_else(judged):
    one, other = draw("MLO", 1, width=280)[0][::-1], draw("MLO", 2, width=280)[0][::-1, ::-1]

    assert judged(np.hstack((other, one)), "MLO") == [Doubt.TWO_BREASTS]
    assert judged(np.hstack((one, other)), "MLO") == [Doubt.TWO_BREASTS]


@pytest.mark.parametrize("turns", [1, 3])
def test_a_lying_breast_that_fills_a_square_is_not_taken_for_two(judged, turns):
    """Pointed, it ends in a tip on both sides, as two breasts do."""
    levels, _ = draw()
    y, x = np.mgrid[:512, :400]
    pointed = np.where(x / 280 + np.abs(y - 256) / 215 < 1, levels, 0)

    lying = cv2.resize(np.ascontiguousarray(np.rot90(pointed, turns)), (400, 512))

    assert judged(lying, "CC") == [Doubt.LYING]


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("overlap", [20, 60])
def test_two_breasts_whose_tips_touch_are_doubted(judged, view, overlap):
    one, other = draw(view, 1, width=150)[0], draw(view, 2, width=150)[0]
    cut = 280 - overlap // 2

    pair = np.hstack((one[:, :cut], other[:, :cut][:, ::-1]))

    assert judged(pair, view) == [Doubt.TWO_BREASTS]
