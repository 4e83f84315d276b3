"""Mask pictures by the value of their pixels: maps of classes, soft edges, images, overlays."""

import cv2
import numpy as np
import pytest

from mamfed_client.annotations import read_annotations
from mamfed_client.annotations.classes import MalignantClasses
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.rejections import FileRejected, Reason

ROWS, COLUMNS = 240, 200


@pytest.fixture
def shapes(disk):
    """A lesion within a breast."""
    return disk(ROWS, COLUMNS, 60, 120, 20), disk(ROWS, COLUMNS, 0, 120, 110)


@pytest.fixture
def read(tmp_path):
    def read(pixels, *values, suffix=".png", options=()):
        path = tmp_path / f"m{suffix}"
        assert cv2.imwrite(str(path), pixels, options)
        take = MalignantClasses(values=values)
        return read_annotations([Annotation(path, malignant=take)], *pixels.shape[:2]).mask

    return read


def labels(shapes):
    lesion, breast = shapes
    return breast.astype(np.uint8) + lesion


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("factor", [1, 100])
def test_a_map_of_classes_needs_the_value_of_the_lesion(read, shapes, dtype, factor):
    pixels = labels(shapes).astype(dtype) * factor

    with pytest.raises(FileRejected, match=f"pixels of {factor}, {2 * factor}; name") as caught:
        read(pixels)
    assert caught.value.reason is Reason.UNKNOWN_CLASS
    np.testing.assert_array_equal(read(pixels, str(2 * factor)), shapes[0])


def test_small_specks_of_another_class_are_no_soft_edges(read, shapes):
    pixels = shapes[0].astype(np.uint8) * 2
    pixels[20:24, 20:24] = 1

    with pytest.raises(FileRejected, match="pixels of 1, 2"):
        read(pixels)


def test_a_map_without_a_background_needs_the_value_too(read, shapes):
    pixels = shapes[0].astype(np.uint8) + 1

    with pytest.raises(FileRejected, match="pixels of 1, 2 and no background 0"):
        read(pixels)
    np.testing.assert_array_equal(read(pixels, "2"), shapes[0])


def test_an_inverted_mask_is_read_by_the_value_0(read, shapes):
    np.testing.assert_array_equal(read(255 - shapes[0] * np.uint8(255), "0"), shapes[0])


@pytest.mark.parametrize("factor", [2, 4])
def test_a_mask_that_was_enlarged_smoothly_is_one_mask(read, shapes, factor):
    small = shapes[0][::factor, ::factor] * np.uint8(255)
    smooth = cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_LINEAR)

    mask = read(smooth)

    assert (mask & shapes[0]).sum() / (mask | shapes[0]).sum() > 0.75


def test_a_mask_with_smoothed_edges_is_one_mask(read, shapes):
    drawn = np.zeros((ROWS, COLUMNS), np.uint8)
    cv2.circle(drawn, (60, 120), 20, 255, cv2.FILLED, cv2.LINE_AA)

    assert (read(drawn) ^ shapes[0]).sum() < 130


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_mask_is_one_mask_and_a_jpeg_map_is_none(read, shapes, quality):
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]

    mask = read(shapes[0] * np.uint8(255), suffix=".jpg", options=options)

    assert (mask ^ shapes[0]).sum() < 40
    with pytest.raises(FileRejected, match="this is an image, not a mask"):
        read(labels(shapes) * np.uint8(127), suffix=".jpg", options=options)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_map_of_pieces_apart_is_no_mask(read, disk, shapes, quality):
    pixels = shapes[0] * np.uint8(254) + disk(ROWS, COLUMNS, 150, 200, 15) * np.uint8(127)

    with pytest.raises(FileRejected, match="this is an image, not a mask"):
        read(pixels, suffix=".jpg", options=[cv2.IMWRITE_JPEG_QUALITY, quality])


def test_a_dark_jpeg_marks_nothing(read, shapes):
    with pytest.raises(FileRejected) as caught:
        read(shapes[0] * np.uint8(9), suffix=".jpg")
    assert caught.value.reason is Reason.EMPTY_MASK


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_copy_of_the_image_is_no_mask(read, shapes, suffix):
    noise = np.random.default_rng(0).integers(40, 220, (ROWS, COLUMNS))
    image = np.where(shapes[1], cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 3), 0)

    with pytest.raises(FileRejected, match="this is an image, not a mask") as caught:
        read(image.astype(np.uint8), suffix=suffix)
    assert caught.value.reason is Reason.UNREADABLE_MASK


def test_a_map_of_colours_needs_the_colour_of_the_lesion(read, shapes):
    lesion, breast = shapes
    pixels = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    pixels[breast], pixels[lesion] = (0, 255, 0), (0, 0, 255)

    with pytest.raises(FileRejected, match="pixels of #00ff00, #ff0000; name"):
        read(pixels)
    np.testing.assert_array_equal(read(pixels, "#FF0000"), lesion)


def test_one_colour_on_black_is_the_mask(read, shapes):
    for colour in ((0, 255, 255), (40, 90, 200), (0, 9, 0)):
        pixels = np.zeros((ROWS, COLUMNS, 3), np.uint8)
        pixels[shapes[0]] = colour
        np.testing.assert_array_equal(read(pixels), shapes[0])


def test_what_is_drawn_over_the_image_needs_its_colour(read, shapes):
    lesion, _ = shapes
    grey = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 1), np.uint8)
    pixels = np.repeat(grey, 3, axis=-1)
    pixels[lesion] = (0, 0, 255)

    with pytest.raises(FileRejected, match="pixels of #ff0000, picture and no background"):
        read(pixels)
    np.testing.assert_array_equal(read(pixels, "#ff0000"), lesion)


def test_a_coloured_picture_is_no_mask(read):
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)

    with pytest.raises(FileRejected, match="a coloured picture, not a mask"):
        read(pixels)


def test_probabilities_are_no_mask(read, shapes):
    spread = cv2.GaussianBlur(shapes[0] * np.float32(255), (0, 0), 25)

    with pytest.raises(FileRejected, match="this is an image, not a mask"):
        read(spread.astype(np.uint8))
