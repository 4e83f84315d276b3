import numpy as np
import pytest
from scipy.ndimage import affine_transform
from tests.conftest import blob_sample

from mamfed_common.transforms.augmentation import (
    _matrix,
    _moved,
    _moved_image,
    apply_geometry,
    vary_intensity,
)
from mamfed_common.transforms.config import AugmentationConfig

STILL = AugmentationConfig(flip=0, max_rotation_degrees=0, max_log_scale=0, gamma=0)


def test_no_augmentation_is_the_identity():
    sample = blob_sample(0)
    moved = vary_intensity(
        apply_geometry(sample, STILL, np.random.default_rng(0)),
        STILL,
        None or np.random.default_rng(0),
    )
    assert (moved.image == sample.image).all()


def test_image_and_mask_move_together():
    sample = blob_sample(1, size=64)
    for seed in range(20):
        moved = apply_geometry(sample, AugmentationConfig(), np.random.default_rng(seed))
        if moved.mask.sum() > 20:
            inside = moved.image[moved.mask].mean()
            assert inside > 1.5 * moved.image[moved.breast_mask & ~moved.mask].mean()


def test_flips_are_exact():
    sample = blob_sample(2)
    both = STILL.model_copy(update={"flip": 1.0})
    moved = apply_geometry(sample, both, np.random.default_rng(0))
    assert (moved.image == sample.image[::-1, ::-1]).all()
    assert (moved.mask == sample.mask[::-1, ::-1]).all()


@pytest.mark.parametrize("shape", [(5, 5), (64, 64), (150, 150)])
def test_a_quarter_turn_and_a_flip_land_on_the_pixel(shape):
    plane = np.random.default_rng(0).random(shape) < 0.3
    quarter = _matrix(shape, 90, 1, upside_down=False, mirrored=False)
    np.testing.assert_array_equal(_moved(plane, quarter), np.rot90(plane))
    flipped_first = _matrix(shape, 90, 1, upside_down=True, mirrored=False)
    np.testing.assert_array_equal(_moved(plane, flipped_first), np.rot90(plane[::-1]))
    mirrored = _matrix(shape, 0, 1, upside_down=False, mirrored=True)
    np.testing.assert_array_equal(_moved(plane, mirrored), plane[:, ::-1])


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("angle", [-15, 4, 15])
@pytest.mark.parametrize("scale", [0.9, 1.15])
def test_images_are_interpolated_as_scipy_does(angle, scale, upside_down):
    breast = blob_sample(4, size=200).breast_mask
    smooth = breast * np.add.outer(np.arange(200) * 100, np.arange(200) * 200 + 500)
    matrix = _matrix((200, 200), angle, scale, upside_down, mirrored=False)
    breast_mask = _moved(breast, matrix)
    image = _moved_image(smooth.astype(np.uint16), matrix, breast_mask)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2][::-1]  # rows first, as scipy has it
    share, grey = (
        affine_transform(
            plane.astype(float), back[:, [1, 0]], back[:, 2], order=1, mode="grid-constant"
        )
        for plane in (breast, smooth)
    )
    assert (share > 0.999).mean() > 0.5
    assert abs(image - grey)[share > 0.999].max() < 20  # of 60,000: cv2 counts in 32nds of a pixel
    assert breast_mask[share > 0.8].all()  # nearest: a corner may have a quarter or three
    assert not breast_mask[share < 0.2].any()


def test_a_moved_image_stays_black_outside_its_breast():
    for seed in range(20):
        moved = apply_geometry(
            blob_sample(5, size=150), AugmentationConfig(), np.random.default_rng(seed)
        )
        assert moved.image[~moved.breast_mask].max() == 0
        assert (moved.image[moved.breast_mask] > 0).mean() > 0.99
        assert moved.breast_mask.dtype == moved.mask.dtype == bool


def test_what_is_moved_off_the_image_is_gone():
    sample = blob_sample(6, size=64, malignant=False)
    corner = np.zeros_like(sample.breast_mask)
    corner[:2, :2] = True
    enlarged = _matrix((64, 64), 0, 1.2, upside_down=False, mirrored=False)
    assert not _moved(corner, enlarged).any()
    assert not _moved(sample.mask, enlarged).any()


def test_gamma_changes_the_image_only():
    sample = blob_sample(3)
    config = STILL.model_copy(update={"gamma": 1.0})
    varied = vary_intensity(sample, config, np.random.default_rng(0))
    assert (varied.image != sample.image).any()
    assert varied.mask is sample.mask
