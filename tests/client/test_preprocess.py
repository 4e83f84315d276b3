import json

import cv2
import numpy as np
import pytest

from mamfed_client.mammogram import Mammogram
from mamfed_client.preprocess import Transform, breast_field, prepare
from mamfed_client.rejections import Reason, Refusal
from mamfed_client.transform import fit


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("shape", [(181, 131), (64, 48), (700, 501), (300, 299)])
def test_the_field_is_the_breast_at_any_size(drawing, shape):
    breast, inside = drawing.breast(*shape)
    assert overlap(breast_field(breast), inside) > 0.93


@pytest.mark.parametrize("scale", [1, 4095 / 65535, 255 / 65535])
def test_the_field_does_not_depend_on_the_scale_of_grey_levels(drawing, scale):
    breast, inside = drawing.breast()
    assert overlap(breast_field(breast * np.float32(scale)), inside) > 0.93


def test_label_tape_frame_and_blank_film_stay_outside_the_field(drawing):
    breast, inside = drawing.breast(400, 300)
    film = np.maximum(breast, 0.06)  # blank film is not black
    label = np.zeros((400, 300), np.uint8)
    cv2.putText(label, "RMLO", (190, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 4)
    film[label > 0] = 1
    film[:, 280:288] = 0.8  # tape
    film[:5] = film[-4:] = 1  # frame
    film[:, -3:] = 1
    padded = np.pad(film, ((0, 0), (60, 60)))
    inside = np.pad(inside, ((0, 0), (60, 60)))
    assert overlap(breast_field(padded.astype(np.float32)), inside) > 0.9


def test_dark_fat_does_not_tear_the_field_apart(drawing):
    breast, inside = drawing.breast(400, 300)
    y, x = np.mgrid[:400, :300]
    in_depth = ((y - 200) / 145) ** 2 + (x / 180) ** 2 < 1
    holes = in_depth & (x % 40 > 18) & (y % 40 > 18)
    assert overlap(breast_field(np.where(holes, 0, breast)), inside) > 0.93


def test_dim_tissue_under_the_skin_is_inside_the_field(drawing):
    breast, inside = drawing.breast(400, 300)
    y, x = np.mgrid[:400, :300]
    skin = inside & (((y - 200) / 145) ** 2 + (x / 180) ** 2 > 1)
    breast[skin] = (0.03 + 0.03 * np.cos(x / 3) * np.cos(y / 3))[skin]
    assert overlap(breast_field(breast), inside) > 0.93


def test_a_film_frame_beside_the_chest_wall_is_outside_the_field(drawing):
    breast, _ = drawing.breast(400, 300)
    breast[:, :8] = 1
    assert breast_field(breast)[150:250, :8].mean() < 0.1


def test_a_muscle_that_saturates_towards_the_edge_is_inside_the_field(drawing):
    breast, _ = drawing.breast(400, 300)
    x = np.arange(300)
    breast[100:300] = np.maximum(breast[100:300], (1.05 - x / 150).clip(0, 1))
    assert breast_field(breast)[120:280, :8].mean() > 0.95


@pytest.mark.parametrize("padding", [0, 60])
def test_a_glow_along_the_films_edge_is_outside_the_field(drawing, padding):
    breast, inside = drawing.breast(400, 300)
    breast[:, :18] = np.maximum(breast[:, :18], 0.1)
    breast, inside = (np.pad(a, ((0, 0), (padding, 0))) for a in (breast, inside))
    assert breast_field(breast)[~inside].mean() < 0.02


def test_a_narrow_breast_amid_padding_is_found(drawing):
    breast, inside = (np.pad(a, ((0, 0), (150, 150))) for a in drawing.breast(400, 60))
    assert overlap(breast_field(breast), inside) > 0.8


def test_a_small_corner_of_background_is_no_hole(drawing):
    y, x = np.mgrid[:400, :300]
    corner = x + y > 700 - 70
    levels = np.where(corner, 0, 0.4 + 0.1 * np.cos(x / 9) * np.cos(y / 9))
    assert breast_field(levels.astype(np.float32))[corner].mean() < 0.2


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((50, 40)), np.ones((50, 40)), np.eye(300), np.full((1, 1), 0.5)],
    ids=["black", "white", "a line", "a pixel"],
)
def test_images_without_a_breast_are_refused(pixels):
    with pytest.raises(Refusal) as caught:
        breast_field(pixels.astype(np.float32))
    assert caught.value.reason is Reason.NO_BREAST


def test_the_sample_has_the_breast_at_the_top_left_and_zeros_around(drawing):
    breast, _ = drawing.breast(181, 131)
    sample, transform = prepare(Mammogram(breast), None, 64, "a.png")
    height, width = transform.shape
    assert max(height, width) == 64
    assert sample.name == "a.png"
    assert sample.image.dtype == np.uint16
    assert sample.image.shape == sample.field.shape == sample.mask.shape == (64, 64)
    assert not sample.mask.any()
    assert not sample.image[~sample.field].any()
    assert not sample.field[:, width:].any()
    assert not sample.field[height:].any()


def test_a_mirrored_breast_gives_the_same_sample_flipped_back(drawing):
    breast, _ = drawing.breast()
    left, direct = prepare(Mammogram(breast), None, 80)
    right, mirrored = prepare(Mammogram(np.ascontiguousarray(breast[:, ::-1])), None, 80)
    assert not direct.flipped
    assert mirrored.flipped
    assert overlap(left.field, right.field) > 0.98
    assert np.abs(left.image.astype(int) - right.image.astype(int)).mean() < 0.01 * 65535


def test_pixels_outweigh_a_wrong_laterality(drawing):
    breast, _ = drawing.breast()
    assert not prepare(Mammogram(breast, laterality="R"), None, 80)[1].flipped


def test_laterality_decides_where_the_pixels_leave_it_open():
    symmetric = np.zeros((90, 90), bool)
    symmetric[10:80, 20:70] = True
    assert fit(symmetric, "R", 64).flipped
    assert not fit(symmetric, "L", 64).flipped
    assert not fit(symmetric, None, 64).flipped


def test_the_heavier_half_decides_where_nothing_else_does():
    field = np.zeros((90, 90), bool)
    field[10:80, 20:70] = True
    field[:10, 50:60] = True
    assert fit(field, None, 64).flipped


def test_the_breast_is_not_stretched():
    field = np.zeros((101, 203), bool)
    field[30:70, :150] = True
    transform = fit(field, "L", 77)
    height, width = transform.shape
    assert width == 77
    assert height / width == pytest.approx(
        (transform.bottom - transform.top) / (transform.right - transform.left), abs=1 / 77
    )


def test_grey_levels_are_stretched_to_the_breasts_own_range(drawing):
    breast, _ = drawing.breast()
    bright = prepare(Mammogram(breast), None, 96)[0]
    dim = prepare(Mammogram(breast * np.float32(4095 / 65535)), None, 96)[0]
    assert bright.image.max() > 0.9 * 65535
    assert np.abs(bright.image.astype(int) - dim.image.astype(int)).max() <= 2


def test_the_mask_lies_on_its_lesion(drawing):
    breast, lesion = drawing.breast()[0], drawing.lesion()
    breast[lesion] = 0.95
    sample, _ = prepare(Mammogram(np.ascontiguousarray(breast[:, ::-1])), lesion[:, ::-1], 96)
    assert sample.image[sample.mask].min() > sample.image[sample.field & ~sample.mask].mean()


@pytest.mark.parametrize("size", [64, 150, 257])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mask_comes_back_to_the_files_pixels(drawing, size, mirrored):
    breast, _ = drawing.breast(331, 257)
    y, x = np.mgrid[:331, :257]
    lesion = (y - 170) ** 2 / 60**2 + (x - 70) ** 2 / 45**2 < 1
    if mirrored:
        breast, lesion = np.ascontiguousarray(breast[:, ::-1]), lesion[:, ::-1]
    sample, transform = prepare(Mammogram(breast), lesion, size)
    back = transform.invert(sample.mask)
    assert back.shape == (331, 257)
    assert overlap(back >= 0.5, lesion) >= 0.95


def test_a_transform_survives_json(drawing):
    _, transform = prepare(Mammogram(drawing.breast()[0]), None, 64)
    assert Transform.from_json(json.loads(json.dumps(transform.to_json()))) == transform


def test_every_tiny_calcification_keeps_a_pixel():
    field = np.ones((1000, 800), bool)
    mask = np.zeros_like(field)
    mask[100, 100] = mask[500:502, 300] = mask[900, 700] = True
    mask[200:400, 200:400] = True
    small = fit(field, None, 50).apply_mask(mask)
    count, _ = cv2.connectedComponents(small.astype(np.uint8))
    assert count - 1 == 4


def test_an_empty_mask_stays_empty():
    field = np.ones((100, 80), bool)
    assert not fit(field, None, 33).apply_mask(np.zeros_like(field)).any()


def test_a_lesion_outside_the_breast_is_not_cut_off(drawing):
    breast, inside = drawing.breast()
    lesion = np.zeros_like(inside)
    lesion[2:12, 115:128] = True
    assert not (inside & lesion).any()
    sample, transform = prepare(Mammogram(breast), lesion, 128)
    assert sample.mask.any()
    assert (sample.field | ~sample.mask).all()
    assert overlap(transform.invert(sample.mask) >= 0.5, lesion) > 0.8
