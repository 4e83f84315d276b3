import numpy as np
from tests.conftest import blob_sample

from mamfed_common.augmentation import AugmentationConfig, move, vary_intensity

STILL = AugmentationConfig(flip=0, max_rotation_degrees=0, max_log_scale=0, gamma=0)


def test_no_augmentation_is_the_identity():
    sample = blob_sample(0)
    moved = vary_intensity(
        move(sample, STILL, np.random.default_rng(0)), STILL, None or np.random.default_rng(0)
    )
    assert (moved.image == sample.image).all()


def test_image_and_mask_move_together():
    sample = blob_sample(1, size=64)
    for seed in range(20):
        moved = move(sample, AugmentationConfig(), np.random.default_rng(seed))
        if moved.mask.sum() > 20:
            inside = moved.image[moved.mask].mean()
            assert inside > 1.5 * moved.image[moved.field & ~moved.mask].mean()


def test_flips_are_exact():
    sample = blob_sample(2)
    both = STILL.model_copy(update={"flip": 1.0})
    moved = move(sample, both, np.random.default_rng(0))
    assert (moved.image == sample.image[::-1, ::-1]).all()
    assert (moved.mask == sample.mask[::-1, ::-1]).all()


def test_gamma_changes_the_image_only():
    sample = blob_sample(3)
    config = STILL.model_copy(update={"gamma": 1.0})
    varied = vary_intensity(sample, config, np.random.default_rng(0))
    assert (varied.image != sample.image).any()
    assert varied.mask is sample.mask
