import numpy as np
import pytest

from mamfed_common.transforms.config import CorruptionConfig
from mamfed_common.transforms.corruption import (
    FULL_SCALE,
    SHAPES,
    _draw_shape,
    _filler,
    _noise,
    _paint_shape,
    _standard_normal,
    apply_gamma,
    corrupt,
    inpaint,
    outpaint,
)

SIZE = 96


def breast() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    breast_mask = (rows - SIZE / 2) ** 2 + columns**2 < (SIZE * 0.45) ** 2
    image = np.where(breast_mask, 20000 + 100 * rows, 0).astype(np.uint16)
    return image, breast_mask


def always(**chances) -> CorruptionConfig:
    return CorruptionConfig(**{"clean": 0, "gamma": 0, "paint": 0, **chances})


def test_the_defaults_are_models_genesis_but_for_the_clean_share():
    config = CorruptionConfig()
    assert (config.gamma, config.paint, config.outpaint) == (0.9, 0.9, 0.8)


def test_the_background_is_never_changed():
    image, breast_mask = breast()
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert (
            corrupt(image, breast_mask, CorruptionConfig(clean=0), rng)[~breast_mask] == 0
        ).all()


def test_the_input_is_never_written_to():
    image, breast_mask = breast()
    kept = image.copy()
    for seed in range(20):
        corrupt(image, breast_mask, CorruptionConfig(), np.random.default_rng(seed))
    assert (image == kept).all()


def test_the_same_generator_draws_the_same_corruption():
    image, breast_mask = breast()
    one, same, other = (
        corrupt(image, breast_mask, CorruptionConfig(clean=0), np.random.default_rng(s))
        for s in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_a_clean_share_of_one_changes_nothing():
    image, breast_mask = breast()
    rng = np.random.default_rng(0)
    assert (corrupt(image, breast_mask, CorruptionConfig(clean=1), rng) == image).all()


def test_gamma_keeps_the_order_of_greys_and_both_ends():
    greys = np.array([[0, 100, 30000, FULL_SCALE]], np.uint16)
    bent = apply_gamma(greys, 2.0)
    assert bent.tolist() == [[0, 0, round((30000 / FULL_SCALE) ** 2 * FULL_SCALE), FULL_SCALE]]


def test_gamma_alone_changes_the_breast_and_no_grey_twice():
    image, breast_mask = breast()
    bent = corrupt(image, breast_mask, always(gamma=1), np.random.default_rng(1))
    assert (bent[breast_mask] != image[breast_mask]).mean() > 0.9
    assert len(np.unique(bent[breast_mask])) <= len(np.unique(image[breast_mask]))


def test_inpainting_changes_some_of_the_breast_and_keeps_the_rest():
    image, breast_mask = breast()
    shares = [
        (inpaint(image, breast_mask, image.shape, always(), np.random.default_rng(s)) != image)[
            breast_mask
        ].mean()
        for s in range(30)
    ]
    assert 0.02 < np.mean(shares) < 0.6


def test_outpainting_replaces_most_of_the_breast_and_keeps_some():
    image, breast_mask = breast()
    shares = [
        (outpaint(image, breast_mask, image.shape, always(), np.random.default_rng(s)) != image)[
            breast_mask
        ].mean()
        for s in range(30)
    ]
    assert 0.2 < np.mean(shares) < 0.9
    assert max(shares) < 1


def test_constant_fill_paints_one_grey_a_shape():
    image, breast_mask = breast()
    config = always(fills=("constant",))
    painted = inpaint(image, breast_mask, image.shape, config, np.random.default_rng(0))
    assert 1 <= len(np.unique(painted[painted != image])) <= 5


def test_all_four_shapes_are_drawn_and_blobs_are_not_rectangles():
    rng = np.random.default_rng(0)
    filled = {round(float(_paint_shape(rng, 40, 30).mean()), 2) for _ in range(200)}
    assert len(SHAPES) == 4
    assert 1.0 in filled
    assert min(filled) < 0.5 < max(filled - {1.0})


def test_noise_is_uniform_over_all_grey_levels():
    noise = _noise(np.random.default_rng(0), (333, 301)).astype(float)
    assert noise.shape == (333, 301)
    assert abs(noise.mean() - FULL_SCALE / 2) < 4 * FULL_SCALE / 12**0.5 / noise.size**0.5
    assert abs(noise.std() - FULL_SCALE / 12**0.5) < 100
    sixteenths = np.histogram(noise, 16, (0, FULL_SCALE + 1))[0] / noise.size
    assert abs(sixteenths - 1 / 16).max() < 0.004
    assert abs(np.corrcoef(noise.ravel()[:-1], noise.ravel()[1:])[0, 1]) < 0.015


def test_the_normal_table_has_the_shares_of_the_normal_distribution():
    table = _standard_normal()
    assert len(table) == FULL_SCALE + 1
    np.testing.assert_allclose(table, -table[::-1], atol=1e-9)
    assert abs(table.std() - 1) < 1e-4
    within = [(abs(table) < deviations).mean() for deviations in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=1e-4)


def test_the_tissue_fill_has_the_tissues_statistics():
    """Seven tenths of the deviation, about a centre from 1.5 deviations below to 2.5 above."""
    centres = []
    for seed in range(200):
        fill = _filler(np.random.default_rng(seed), ("tissue",), (99, 101), (30000.0, 2000.0))
        assert abs(fill.std() - 1400) < 50
        centres.append((fill.mean() - 30000) / 2000)
    assert -1.55 < min(centres) < -1.35
    assert 2.35 < max(centres) < 2.55
    assert abs(np.mean(centres) - 0.5) < 0.35


@pytest.mark.parametrize("mean", [0.0, float(FULL_SCALE)])
def test_the_tissue_fill_is_cut_at_black_and_white_and_never_wraps(mean):
    fill = _filler(np.random.default_rng(1), ("tissue",), (200, 200), (mean, 3000.0))
    assert abs(fill - mean).max() < 3000 * (2.5 + 0.7 * 4.4)
    assert (fill == mean).mean() > 0.0001


def test_a_painted_breast_takes_its_own_statistics():
    image, breast_mask = breast()
    painted = outpaint(
        image, breast_mask, image.shape, always(fills=("tissue",)), np.random.default_rng(2)
    )
    values = painted[breast_mask].astype(float)
    assert abs(values.mean() - image[breast_mask].mean()) < 4 * image[breast_mask].std()


def test_shapes_keep_their_size_where_the_breast_is_a_small_part_of_the_image():
    rng = np.random.default_rng(0)
    breast = np.ones((600, 30), bool)
    shapes = [_draw_shape(rng, breast, (600, 600), (1 / 6, 1 / 3))[0].shape for _ in range(100)]
    assert all(50 <= height <= 200 for height, _ in shapes)
    assert max(height for height, _ in shapes) > 190
    assert max(width for _, width in shapes) == 30


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 64)])
def test_any_size_and_a_one_pixel_breast_are_fine(shape):
    breast_mask = np.zeros(shape, bool)
    breast_mask[shape[0] // 2, shape[1] // 2] = True
    image = np.full(shape, 30000, np.uint16)
    for seed in range(20):
        result = corrupt(image, breast_mask, CorruptionConfig(clean=0), np.random.default_rng(seed))
        assert (result != image).sum() <= 1


def test_an_image_without_breast_comes_back_unchanged():
    image = np.full((8, 8), 7, np.uint16)
    empty = np.zeros((8, 8), bool)
    assert (corrupt(image, empty, always(paint=1), np.random.default_rng(0)) == 7).all()
