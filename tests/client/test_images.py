import cv2
import numpy as np
import pytest

from mamfed_client.images import read_image, read_mask
from mamfed_client.reading import read_lesions
from mamfed_client.rejections import Reason, Refusal
from mamfed_common.errors import DataError


def test_8_bit_grey_levels_are_divided_by_255(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[0, 51], [102, 255]], np.uint8))
    pixels = read_image(path).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [[0, 0.2], [0.4, 1]], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_16_bit_grey_levels_are_divided_by_65535(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.array([[0, 13107, 65535]], np.uint16))
    np.testing.assert_allclose(read_image(path).pixels, [[0, 0.2, 1]], rtol=1e-6)


def test_a_grey_jpeg_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.full((16, 24), 128, np.uint8))
    np.testing.assert_allclose(read_image(path).pixels, np.full((16, 24), 128 / 255), atol=0.01)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_with_equal_channels_counts_as_grey(tmp_path, channels):
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    picture = np.dstack([grey, grey, grey, np.full_like(grey, 255)])[..., :channels]
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    np.testing.assert_allclose(read_image(tmp_path / "a.png").pixels, grey / np.float32(255))


def test_true_colour_is_refused(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[1, 1] = 10, 20, 30
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(Refusal, match="colour"):
        read_image(tmp_path / "a.png")


def test_transparent_pixels_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4, 4), 100, np.uint8))
    with pytest.raises(Refusal, match="transparent"):
        read_image(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.ones((4, 4), np.float32))
    with pytest.raises(Refusal, match="float32"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_broken_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.reason is Reason.UNREADABLE_IMAGE


def test_a_refusal_ends_a_command_with_the_exit_code_of_bad_data(tmp_path):
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "absent.png")
    assert caught.value.exit_code == 4


def test_any_non_zero_mask_pixel_is_lesion_in_grey_and_in_colour(tmp_path):
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), mask)
    cv2.imwrite(str(tmp_path / "red.png"), np.dstack([0 * mask, 0 * mask, mask]))
    opaque = np.full_like(mask, 255)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([mask, mask, mask, opaque]))
    for name in ("grey", "red", "alpha"):
        assert read_mask(tmp_path / f"{name}.png").tolist() == [[False, True], [True, False]]


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path, drawing):
    drawing.png(tmp_path / "image.png", np.ones((4, 6)))
    drawing.png(tmp_path / "mask.png", np.ones((4, 5)))
    with pytest.raises(Refusal, match="mask of another size: mask 5 x 4 on an image of 6 x 4"):
        read_lesions(tmp_path / "mask.png", read_image(tmp_path / "image.png"))


def test_a_mask_that_marks_nothing_is_refused(tmp_path, drawing):
    drawing.png(tmp_path / "image.png", np.ones((4, 6)))
    drawing.png(tmp_path / "mask.png", np.zeros((4, 6)))
    with pytest.raises(Refusal, match="empty mask"):
        read_lesions(tmp_path / "mask.png", read_image(tmp_path / "image.png"))
