import json

import cv2
import numpy as np
import pytest

from mamfed_client.imaging.breast_mask import VIEW, breast_view, upscale_mask
from mamfed_client.imaging.geometry import Box, choose_transform
from mamfed_client.imaging.mammogram import Facts, Mammogram
from mamfed_client.imaging.preprocess import (
    Transform,
    analyse,
    check_preparable,
    find_breast_mask,
    prepare,
)
from mamfed_client.imaging.rejections import FileRejected, Reason


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def grey(levels):
    return np.rint(levels * 65535).astype(np.uint16)


def mammogram(levels, valid=None, laterality=None):
    return Mammogram(grey(levels), valid, Facts(laterality=laterality))


def dense_breast(rows, columns, seed=0):
    """A breast that is nearly white to its chest wall and fades towards its skin."""
    y, x = np.mgrid[:rows, :columns]
    depth = 1 - ((y - rows * 0.5) / (rows * 0.42)) ** 2 - (x / (columns * 0.7)) ** 2
    noise = np.random.default_rng(seed).normal(0, 0.02, (rows, columns))
    return np.where(depth > 0, 0.3 + 0.9 * depth + noise, 0).clip(0, 1), depth > 0


def transform_of(box, shape, *, flipped=False, size=64):
    return Transform(*shape, *box, flipped=flipped, size=size)


@pytest.mark.parametrize("shape", [(181, 131), (64, 48), (700, 501), (300, 299)])
def test_the_field_is_the_breast_at_any_size(drawing, shape):
    breast, inside = drawing.breast(*shape)
    assert overlap(find_breast_mask(breast), inside) > 0.93


@pytest.mark.parametrize("scale", [1, 4095 / 65535, 255 / 65535])
def test_the_field_does_not_depend_on_the_scale_of_grey_levels(drawing, scale):
    breast, inside = drawing.breast()
    assert overlap(find_breast_mask(breast * np.float32(scale)), inside) > 0.93
    assert overlap(find_breast_mask(grey(breast * scale)), inside) > 0.93


@pytest.mark.parametrize("shape", [(181, 131), (1021, 777), (90, 333)])
def test_the_view_of_the_breast_is_small_and_its_enlargement_the_field(drawing, shape):
    breast, inside = drawing.breast(*shape)
    view = breast_view(grey(breast))
    assert max(view.shape) == VIEW
    assert overlap(upscale_mask(view, shape), inside) > 0.93
    np.testing.assert_array_equal(upscale_mask(view, shape), find_breast_mask(grey(breast)))


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
    assert overlap(find_breast_mask(padded.astype(np.float32)), inside) > 0.9


def test_dark_fat_does_not_tear_the_field_apart(drawing):
    breast, inside = drawing.breast(400, 300)
    y, x = np.mgrid[:400, :300]
    in_depth = ((y - 200) / 145) ** 2 + (x / 180) ** 2 < 1
    holes = in_depth & (x % 40 > 18) & (y % 40 > 18)
    assert overlap(find_breast_mask(np.where(holes, 0, breast)), inside) > 0.93


def test_dim_tissue_under_the_skin_is_inside_the_field(drawing):
    breast, inside = drawing.breast(400, 300)
    y, x = np.mgrid[:400, :300]
    skin = inside & (((y - 200) / 145) ** 2 + (x / 180) ** 2 > 1)
    breast[skin] = (0.03 + 0.03 * np.cos(x / 3) * np.cos(y / 3))[skin]
    assert overlap(find_breast_mask(breast), inside) > 0.93


def test_a_film_frame_beside_the_chest_wall_is_outside_the_field(drawing):
    breast, _ = drawing.breast(400, 300)
    breast[:, :8] = 1
    assert find_breast_mask(breast)[150:250, :8].mean() < 0.1


def test_a_muscle_that_saturates_towards_the_edge_is_inside_the_field(drawing):
    breast, _ = drawing.breast(400, 300)
    x = np.arange(300)
    breast[100:300] = np.maximum(breast[100:300], (1.05 - x / 150).clip(0, 1))
    assert find_breast_mask(breast)[120:280, :8].mean() > 0.95


@pytest.mark.parametrize("padding", [0, 60])
def test_a_glow_along_the_films_edge_is_outside_the_field(drawing, padding):
    breast, inside = drawing.breast(400, 300)
    breast[:, :18] = np.maximum(breast[:, :18], 0.1)
    breast, inside = (np.pad(a, ((0, 0), (padding, 0))) for a in (breast, inside))
    assert find_breast_mask(breast)[~inside].mean() < 0.02


@pytest.mark.parametrize("thickness", [2, 4, 8])
@pytest.mark.parametrize("dim", [0.15, 1])
def test_labels_and_clips_stay_outside_the_field(drawing, thickness, dim):
    breast, inside = drawing.breast(400, 300)
    lead = np.zeros(breast.shape, np.uint8)
    cv2.putText(lead, "L-CC", (190, 70), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, thickness)
    cv2.rectangle(lead, (255, 300), (275, 330), 230, -1)  # a clip
    cv2.circle(lead, (250, 140), 9, 255, -1)  # a marker beside the nipple
    exposed = np.maximum(breast * dim, lead / 255)
    assert overlap(find_breast_mask(grey(exposed)), inside) > 0.93


@pytest.mark.parametrize("width", [1, 4, 12])
@pytest.mark.parametrize("sides", ["top", "left", "all"])
def test_a_white_border_is_outside_the_field(drawing, width, sides):
    breast, inside = drawing.breast(400, 300)
    before, after = (0, width) if sides == "left" else (width, 0)
    widths = width if sides == "all" else ((before, 0), (after, 0))
    framed = np.pad(breast, widths, constant_values=1)
    around = np.pad(inside, widths)
    assert overlap(find_breast_mask(grey(framed)), around) > 0.93


@pytest.mark.parametrize("deviation", [0.02, 0.05, 0.1])
def test_the_field_is_found_in_noise(drawing, deviation):
    breast, inside = drawing.breast(1200, 900)
    noise = np.random.default_rng(1).normal(0.1, deviation, breast.shape)
    assert overlap(find_breast_mask(grey((breast + noise).clip(0, 1))), inside) > 0.93


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_dense_breast_that_touches_the_edge_is_no_film_frame(mirrored):
    breast, inside = dense_breast(400, 300)
    if mirrored:
        breast, inside = breast[:, ::-1], inside[:, ::-1]
    assert overlap(find_breast_mask(grey(breast)), inside) > 0.93


@pytest.mark.parametrize("level", [0, 0.3, 1])
def test_padding_of_any_level_is_outside_the_field_and_the_box(drawing, level):
    breast, inside = drawing.breast(400, 300)
    widths = ((37, 11), (60, 201))
    padded = np.pad(breast, widths, constant_values=level)
    valid = np.pad(np.ones_like(inside), widths)
    inside = np.pad(inside, widths)
    breast_mask = find_breast_mask(grey(padded), valid)
    assert overlap(breast_mask, inside) > 0.93
    sample, transform = prepare(mammogram(padded, valid), None, 128)
    assert not transform.flipped
    assert (sample.breast_mask & ~transform.apply_strictly(valid)).sum() == 0
    content = find_breast_mask(grey(breast))
    (top, bottom, left, right), margin = Box.around(content), 0.02 * 400
    found = (transform.top, transform.bottom, transform.left, transform.right)
    expected = (top + 37, bottom + 37, left + 60, right + 60)
    np.testing.assert_allclose(found, expected, atol=margin + 4)


def test_padding_within_the_breasts_box_is_no_tissue_and_sets_no_level(drawing):
    breast, _ = drawing.breast(400, 300)
    y, x = np.mgrid[:400, :300]
    valid = x + y / 2 > 100  # a corner of the detector that gave nothing
    dark, bright = (np.where(valid, breast, level) for level in (0, 1))
    of_dark, transform = prepare(mammogram(dark, valid), None, 128)
    of_bright, _ = prepare(mammogram(bright, valid), None, 128)
    np.testing.assert_array_equal(of_dark.breast_mask, of_bright.breast_mask)
    np.testing.assert_array_equal(of_dark.image, of_bright.image)
    shares = transform.apply(valid.astype(np.float32))
    assert shares[of_dark.breast_mask].min() == pytest.approx(1)
    assert not of_dark.image[shares < 0.999].any()


def test_a_padded_stripe_across_the_breast_is_not_closed(drawing):
    breast, inside = drawing.breast(512, 384)
    valid = np.ones_like(inside)
    valid[241:249] = False
    breast = np.where(valid, breast, 1)
    view = breast_view(grey(breast), valid)
    assert not view[121:124].any()
    breast_mask = find_breast_mask(grey(breast), valid)
    assert overlap(breast_mask, inside & valid) > 0.93
    assert not (breast_mask & ~valid).any()


def test_black_padding_around_foggy_film_does_not_hide_the_breast(drawing):
    breast, inside = drawing.breast(400, 300)
    widths = ((300, 300), (200, 400))
    foggy = np.pad(0.7 + 0.3 * breast, widths)
    valid = np.pad(np.ones_like(inside), widths)
    assert overlap(find_breast_mask(grey(foggy), valid), np.pad(inside, widths)) > 0.9


def test_an_image_of_padding_alone_is_refused(drawing):
    breast, inside = drawing.breast()
    with pytest.raises(FileRejected) as caught:
        find_breast_mask(breast, np.zeros_like(inside))
    assert caught.value.reason is Reason.NO_BREAST


def test_a_narrow_breast_amid_padding_is_found(drawing):
    breast, inside = (np.pad(a, ((0, 0), (150, 150))) for a in drawing.breast(400, 60))
    assert overlap(find_breast_mask(breast), inside) > 0.8


def test_a_small_corner_of_background_is_no_hole(drawing):
    y, x = np.mgrid[:400, :300]
    corner = x + y > 700 - 70
    levels = np.where(corner, 0, 0.4 + 0.1 * np.cos(x / 9) * np.cos(y / 9))
    assert find_breast_mask(levels.astype(np.float32))[corner].mean() < 0.2


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((50, 40)), np.ones((50, 40)), np.eye(300), np.full((1, 1), 0.5)],
    ids=["black", "white", "a line", "a pixel"],
)
def test_images_without_a_breast_are_refused(pixels):
    with pytest.raises(FileRejected) as caught:
        find_breast_mask(pixels.astype(np.float32))
    assert caught.value.reason is Reason.NO_BREAST


def test_the_sample_has_the_breast_at_the_top_left_and_zeros_around(drawing):
    breast, _ = drawing.breast(181, 131)
    sample, transform = prepare(mammogram(breast), None, 64, "a.png")
    height, width = transform.shape
    assert max(height, width) == 64
    assert sample.name == "a.png"
    assert sample.image.dtype == np.uint16
    assert sample.image.shape == sample.breast_mask.shape == sample.mask.shape == (64, 64)
    assert not sample.mask.any()
    assert not sample.image[~sample.breast_mask].any()
    assert not sample.breast_mask[:, width:].any()
    assert not sample.breast_mask[height:].any()


def test_a_mirrored_breast_gives_the_same_sample_flipped_back(drawing):
    breast, _ = drawing.breast()
    left, direct = prepare(mammogram(breast), None, 80)
    right, mirrored = prepare(mammogram(breast[:, ::-1]), None, 80)
    assert not direct.flipped
    assert mirrored.flipped
    assert overlap(left.breast_mask, right.breast_mask) > 0.98
    assert np.abs(left.image.astype(int) - right.image.astype(int)).mean() < 0.01 * 65535


def test_pixels_outweigh_a_wrong_laterality(drawing):
    breast, _ = drawing.breast()
    assert not prepare(mammogram(breast, laterality="R"), None, 80)[1].flipped


def test_laterality_decides_where_the_pixels_leave_it_open():
    symmetric = np.zeros((90, 90), bool)
    symmetric[10:80, 20:70] = True
    assert choose_transform(symmetric, "R", 64).flipped
    assert not choose_transform(symmetric, "L", 64).flipped
    assert not choose_transform(symmetric, None, 64).flipped


@pytest.mark.parametrize("laterality", ["L", "R"])
def test_the_mammograms_laterality_is_asked(laterality):
    symmetric = np.zeros((300, 300))
    y, x = np.mgrid[:300, :300]
    disk = (y - 150) ** 2 + (x - 150) ** 2 < 100**2
    symmetric[disk] = (0.5 + 0.2 * np.cos(y / 9))[disk]
    _, transform = prepare(mammogram(symmetric, laterality=laterality), None, 64)
    assert transform.flipped == (laterality == "R")


def test_the_heavier_half_decides_where_nothing_else_does():
    breast_mask = np.zeros((90, 90), bool)
    breast_mask[10:80, 20:70] = True
    breast_mask[:10, 50:60] = True
    assert choose_transform(breast_mask, None, 64).flipped


def test_the_breast_is_not_stretched():
    breast_mask = np.zeros((101, 203), bool)
    breast_mask[30:70, :150] = True
    transform = choose_transform(breast_mask, "L", 77)
    height, width = transform.shape
    assert width == 77
    assert height / width == pytest.approx(
        (transform.bottom - transform.top) / (transform.right - transform.left), abs=1 / 77
    )


def test_grey_levels_are_stretched_to_the_breasts_own_range(drawing):
    breast, _ = drawing.breast()
    bright = prepare(mammogram(breast), None, 96)[0]
    dim = prepare(mammogram(breast * np.float32(4095 / 65535)), None, 96)[0]
    assert bright.image.max() > 0.9 * 65535
    step = 65535 / 4095 / 0.3  # of the dim image's levels, when the breast spans 0.3 of them
    assert np.abs(bright.image.astype(int) - dim.image.astype(int)).max() <= 2 * step


def test_half_a_percent_of_the_breast_is_black_and_a_five_hundredth_white(drawing):
    breast, _ = drawing.breast(400, 300)
    levels = grey(np.maximum(breast, 0.06))
    sample, transform = prepare(Mammogram(levels), None, 400)
    black, white = np.percentile(levels[find_breast_mask(levels)], (0.5, 99.8))
    assert 0 < black < 0.1 * 65535
    expected = (transform.apply(levels) - black) / (white - black) * 65535
    difference = sample.image[sample.breast_mask] - expected[sample.breast_mask].clip(0, 65535)
    assert np.abs(difference).max() <= 8


def checked(image, mask, _size):
    check_preparable(image, mask, analyse(image))


@pytest.mark.parametrize("way", [prepare, checked])
def test_a_breast_of_one_level_is_refused(way):
    levels = np.zeros((400, 300))
    levels[:, :150] = 0.4
    with pytest.raises(FileRejected, match="flat") as caught:
        way(mammogram(levels), None, 64)
    assert caught.value.reason is Reason.NO_BREAST


def test_a_breast_half_of_which_is_white_keeps_its_other_half(drawing):
    breast, _ = drawing.breast(400, 300)
    breast[150:250] = np.where(breast[150:250] > 0, 1, 0)
    sample, transform = prepare(mammogram(breast), None, 100)
    white = transform.apply_mask(breast == 1) & sample.breast_mask
    assert (sample.image[white] > 65000).mean() > 0.9
    assert 0 < np.median(sample.image[sample.breast_mask & ~white]) < 65000


def test_the_mask_lies_on_its_lesion(drawing):
    breast, lesion = drawing.breast()[0], drawing.lesion()
    breast[lesion] = 0.95
    sample, _ = prepare(mammogram(breast[:, ::-1]), lesion[:, ::-1], 96)
    assert sample.image[sample.mask].min() > sample.image[sample.breast_mask & ~sample.mask].mean()


@pytest.mark.parametrize("size", [64, 150, 257])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mask_comes_back_to_the_files_pixels(drawing, size, mirrored):
    breast, _ = drawing.breast(331, 257)
    y, x = np.mgrid[:331, :257]
    lesion = (y - 170) ** 2 / 60**2 + (x - 70) ** 2 / 45**2 < 1
    if mirrored:
        breast, lesion = breast[:, ::-1], lesion[:, ::-1]
    sample, transform = prepare(mammogram(breast), lesion, size)
    back = transform.invert(sample.mask)
    assert back.shape == (331, 257)
    assert overlap(back >= 0.5, lesion) >= 0.95


@pytest.mark.parametrize("shape", [(331, 257), (1024, 801), (97, 75)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("cut", [0, 60])
def test_a_mask_survives_the_way_to_the_file_and_back(drawing, shape, mirrored, cut):
    rows, columns = shape
    breast, inside = drawing.breast(*shape)
    y, x = np.mgrid[:rows, :columns]
    lesion = ((y / rows - 0.5) / 0.12) ** 2 + ((x / columns - 0.35) / 0.2) ** 2 < 1
    kept = slice(rows * cut // 200, None)  # the breast touches the upper edge, too
    breast, inside, lesion = breast[kept], inside[kept], lesion[kept]
    if mirrored:
        breast, lesion = breast[:, ::-1], lesion[:, ::-1]
    sample, transform = prepare(mammogram(breast), lesion, 151)
    assert transform.flipped == mirrored
    again = transform.apply_mask(transform.invert(sample.mask) >= 0.5)
    assert overlap(again, sample.mask) >= 0.98
    if transform.scale > 0.5:
        assert overlap(transform.invert(sample.mask) >= 0.5, lesion) >= 0.98


def test_a_mirrored_image_comes_to_the_same_square():
    image = np.random.default_rng(0).integers(0, 65536, (131, 97), np.uint16)
    straight = transform_of(Box(10, 121, 5, 80), image.shape)
    mirrored = transform_of(Box(10, 121, 17, 92), image.shape, flipped=True)
    difference = straight.apply(image).astype(int) - mirrored.apply(image[:, ::-1])
    assert np.abs(difference).max() <= 1  # OpenCV's rounding
    mask = image > 40000
    np.testing.assert_array_equal(straight.apply_mask(mask), mirrored.apply_mask(mask[:, ::-1]))
    np.testing.assert_array_equal(
        straight.apply_strictly(mask), mirrored.apply_strictly(mask[:, ::-1])
    )
    view = cv2.resize(mask.astype(np.uint8), (33, 44)) > 0
    np.testing.assert_array_equal(straight.apply_view(view), mirrored.apply_view(view[:, ::-1]))
    back = mirrored.invert(straight.apply(image))
    np.testing.assert_allclose(back[:, ::-1], straight.invert(straight.apply(image)), atol=0.1)


def test_an_image_is_rescaled_by_the_means_of_areas():
    image = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    square = transform_of(Box(2, 6, 0, 8), image.shape, size=4).apply(image)
    # The means of 2 x 2 blocks of rows 2 to 5, and the padding below.
    expected = [[2050, 2250, 2450, 2650], [3650, 3850, 4050, 4250], [0] * 4, [0] * 4]
    np.testing.assert_array_equal(square, expected)
    assert square.dtype == np.uint16


@pytest.mark.parametrize("size", [40, 64, 99, 300])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_mask_is_brought_over_as_an_image_of_it_would_be(size, flipped):
    y, x = np.mgrid[:131, :97]
    mask = ((y - 70) ** 2 + (x - 33) ** 2 < 25**2) | ((y > 100) & (x > 75))
    transform = transform_of(Box(3, 129, 2, 95), mask.shape, flipped=flipped, size=size)
    shares = transform.apply(mask.astype(np.float32))
    doubtful = np.abs(shares - 0.5) < 1e-5
    np.testing.assert_array_equal((transform.apply_mask(mask) ^ (shares >= 0.5)) & ~doubtful, False)


@pytest.mark.parametrize("size", [40, 64, 300])
@pytest.mark.parametrize("flipped", [False, True])
def test_what_is_brought_over_strictly_has_nothing_else_in_it(size, flipped):
    mask = np.ones((131, 97), bool)
    mask[50, 40] = mask[:20] = mask[:, 80:] = False
    transform = transform_of(Box(3, 129, 2, 95), mask.shape, flipped=flipped, size=size)
    strict = transform.apply_strictly(mask)
    shares = transform.apply(mask.astype(np.float32))
    assert shares[strict].min() == pytest.approx(1)
    near = cv2.erode((shares > 0.999).astype(np.uint8), np.ones((9, 9))) > 0
    assert strict[near].all()


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_is_brought_over_as_its_enlargement_would_be(flipped):
    y, x = np.mgrid[:64, :48]
    view = ((y - 30) / 25) ** 2 + ((x - 4) / 30) ** 2 < 1
    shape = (701, 523)
    transform = transform_of(Box(33, 655, 0, 391), shape, flipped=flipped, size=257)
    expected = transform.apply_mask(upscale_mask(view, shape))
    assert overlap(transform.apply_view(view), expected) > 0.998  # half a pixel off makes 0.99


def test_a_box_covers_all_pixels_that_its_view_touches():
    view = np.zeros((4, 3), bool)
    view[1:3, 2] = True
    box = Box.around(view)
    assert box == (1, 3, 2, 3)
    # A row of the view is 10 / 4 = 2.5 rows high, a column 7 / 3 wide.
    assert box.scaled((4, 3), (10, 7)) == (2, 8, 4, 7)
    assert box.joined(Box(0, 2, 2, 4)) == (0, 3, 2, 4)
    assert Box.around(np.zeros((3, 3), bool)) is None


def test_a_finding_outside_the_breast_widens_the_box_and_leaves_the_chest_wall():
    breast_mask, finding = np.zeros((64, 48), bool), np.zeros((640, 480), bool)
    breast_mask[10:50, :20] = breast_mask[25:35, 20:30] = True
    finding[600:610, 450:460] = True
    transform = choose_transform(breast_mask, "R", 64, finding.shape, finding)
    assert (transform.top, transform.bottom, transform.left, transform.right) == (90, 620, 0, 470)
    assert not transform.flipped


def test_what_an_outline_marks_on_padding_is_no_finding(drawing):
    breast, _ = drawing.breast()
    valid = np.arange(131)[None, :] + np.zeros((181, 1)) >= 10
    lesion = np.zeros(breast.shape, bool)
    lesion[80:100, :40] = True
    sample, transform = prepare(mammogram(breast * valid, valid), lesion, 128)
    back = transform.invert(sample.mask) >= 0.5
    assert overlap(back, lesion & valid) > 0.9
    assert not back[:, :9].any()


@pytest.mark.parametrize("way", [prepare, checked])
def test_a_mask_on_nothing_but_padding_is_refused(way, drawing):
    breast, _ = drawing.breast()
    valid = np.ones(breast.shape, bool)
    valid[:, 120:] = False
    with pytest.raises(FileRejected) as caught:
        way(mammogram(breast, valid), ~valid, 128)
    assert caught.value.reason is Reason.EMPTY_MASK


def test_a_transform_survives_json(drawing):
    _, transform = prepare(mammogram(drawing.breast()[0]), None, 64)
    assert Transform.from_json(json.loads(json.dumps(transform.to_json()))) == transform


def test_every_tiny_calcification_keeps_a_pixel():
    breast_mask = np.ones((1000, 800), bool)
    mask = np.zeros_like(breast_mask)
    mask[100, 100] = mask[500:502, 300] = mask[900, 700] = True
    mask[200:400, 200:400] = True
    small = choose_transform(breast_mask, None, 50).apply_mask(mask)
    count, _ = cv2.connectedComponents(small.astype(np.uint8))
    assert count - 1 == 4


def test_an_empty_mask_stays_empty():
    breast_mask = np.ones((100, 80), bool)
    assert not choose_transform(breast_mask, None, 33).apply_mask(np.zeros_like(breast_mask)).any()


def test_a_lesion_outside_the_breast_is_not_cut_off(drawing):
    breast, inside = drawing.breast()
    lesion = np.zeros_like(inside)
    lesion[2:12, 115:128] = True
    assert not (inside & lesion).any()
    sample, transform = prepare(mammogram(breast), lesion, 128)
    assert sample.mask.any()
    assert (sample.breast_mask | ~sample.mask).all()
    assert overlap(transform.invert(sample.mask) >= 0.5, lesion) > 0.8
