import numpy as np
import pytest

from mamfed_common.corruption import (
    FULL_SCALE,
    SHAPES,
    CorruptionConfig,
    _paint_shape,
    apply_gamma,
    corrupt,
    inpaint,
    outpaint,
)

SIZE = 96


def breast() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    field = (rows - SIZE / 2) ** 2 + columns**2 < (SIZE * 0.45) ** 2
    image = np.where(field, 20000 + 100 * rows, 0).astype(np.uint16)
    return image, field


def always(**chances) -> CorruptionConfig:
    return CorruptionConfig(**{"clean": 0, "gamma": 0, "paint": 0, **chances})


def test_the_defaults_are_models_genesis_but_for_the_clean_share():
    config = CorruptionConfig()
    assert (config.gamma, config.paint, config.outpaint) == (0.9, 0.9, 0.8)


def test_the_background_is_never_changed():
    image, field = breast()
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert (corrupt(image, field, CorruptionConfig(clean=0), rng)[~field] == 0).all()


def test_the_input_is_never_written_to():
    image, field = breast()
    kept = image.copy()
    for seed in range(20):
        corrupt(image, field, CorruptionConfig(), np.random.default_rng(seed))
    assert (image == kept).all()


def test_the_same_generator_draws_the_same_corruption():
    image, field = breast()
    one, same, other = (
        corrupt(image, field, CorruptionConfig(clean=0), np.random.default_rng(s))
        for s in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_a_clean_share_of_one_changes_nothing():
    image, field = breast()
    rng = np.random.default_rng(0)
    assert (corrupt(image, field, CorruptionConfig(clean=1), rng) == image).all()


def test_gamma_keeps_the_order_of_greys_and_both_ends():
    greys = np.array([[0, 100, 30000, FULL_SCALE]], np.uint16)
    bent = apply_gamma(greys, 2.0)
    assert bent.tolist() == [[0, 0, round((30000 / FULL_SCALE) ** 2 * FULL_SCALE), FULL_SCALE]]


def test_gamma_alone_changes_the_breast_and_no_grey_twice():
    image, field = breast()
    bent = corrupt(image, field, always(gamma=1), np.random.default_rng(1))
    assert (bent[field] != image[field]).mean() > 0.9
    assert len(np.unique(bent[field])) <= len(np.unique(image[field]))


def test_inpainting_changes_some_of_the_breast_and_keeps_the_rest():
    image, field = breast()
    shares = [
        (inpaint(image.copy(), field, always(), np.random.default_rng(s)) != image)[field].mean()
        for s in range(30)
    ]
    assert 0.02 < np.mean(shares) < 0.6


def test_outpainting_replaces_most_of_the_breast_and_keeps_some():
    image, field = breast()
    shares = [
        (outpaint(image, field, always(), np.random.default_rng(s)) != image)[field].mean()
        for s in range(30)
    ]
    assert 0.2 < np.mean(shares) < 0.9
    assert max(shares) < 1


def test_constant_fill_paints_one_grey_a_shape():
    image, field = breast()
    config = always(fills=("constant",))
    painted = inpaint(image.copy(), field, config, np.random.default_rng(0))
    assert 1 <= len(np.unique(painted[painted != image])) <= 5


def test_all_four_shapes_are_drawn_and_blobs_are_not_rectangles():
    rng = np.random.default_rng(0)
    filled = {round(float(_paint_shape(rng, 40, 30).mean()), 2) for _ in range(200)}
    assert len(SHAPES) == 4
    assert 1.0 in filled
    assert min(filled) < 0.5 < max(filled - {1.0})


def test_the_gaussian_fill_resembles_the_tissue():
    image, field = breast()
    painted = outpaint(image, field, always(fills=("tissue",)), np.random.default_rng(2))
    values = painted[field].astype(float)
    assert abs(values.mean() - image[field].mean()) < 4 * image[field].std()


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 64)])
def test_any_size_and_a_one_pixel_breast_are_fine(shape):
    field = np.zeros(shape, bool)
    field[shape[0] // 2, shape[1] // 2] = True
    image = np.full(shape, 30000, np.uint16)
    for seed in range(20):
        result = corrupt(image, field, CorruptionConfig(clean=0), np.random.default_rng(seed))
        assert (result != image).sum() <= 1


def test_an_image_without_breast_comes_back_unchanged():
    image = np.full((8, 8), 7, np.uint16)
    empty = np.zeros((8, 8), bool)
    assert (corrupt(image, empty, always(paint=1), np.random.default_rng(0)) == 7).all()
