"""Found regions painted over with healthy tissue."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.training.repaint import fill_smoothly, repaint
from mamfed_common.transforms.sample import FULL_SCALE, Sample

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture
def painter(tiny_plan):
    return build_network(tiny_plan.network, 0)


def breast(spot=0.5):
    """Tissue with a slope and a grain, a bright spot, and background at the right."""
    rng = np.random.default_rng(0)
    image = np.linspace(0.2, 0.6, SIZE)[:, None] + 0.05 * rng.standard_normal((SIZE, SIZE))
    breast_mask = np.ones((SIZE, SIZE), bool)
    breast_mask[:, 50:] = False
    mask = np.zeros_like(breast_mask)
    mask[28:38, 15:27] = True
    image[mask] += spot
    stored = np.rint(np.clip(image, 0, 1) * FULL_SCALE).astype(np.uint16) * breast_mask
    return Sample(stored.astype(np.uint16), breast_mask, mask, "x")


def image_of(sample):
    return sample.image / np.float32(FULL_SCALE)


def test_a_bright_spot_becomes_tissue_in_tone_and_in_grain(tiny_plan, painter):
    one, plain = breast(), breast(spot=0)
    healthy = repaint(painter, one, one.mask, tiny_plan, CPU)
    assert image_of(one)[one.mask].mean() > 0.8
    assert healthy[one.mask].mean() == pytest.approx(image_of(plain)[one.mask].mean(), abs=0.05)
    assert healthy[one.mask].std() == pytest.approx(image_of(plain)[one.mask].std(), rel=0.4)
    assert healthy.dtype == np.float32
    assert 0 <= healthy.min() <= healthy.max() <= 1


def test_nothing_of_the_spot_shows_through(tiny_plan, painter):
    """What stood in the cut decides no pixel: the painter never sees it."""
    one, plain = breast(), breast(spot=0)
    of_spot = repaint(painter, one, one.mask, tiny_plan, CPU)
    of_plain = repaint(painter, plain, one.mask, tiny_plan, CPU)
    np.testing.assert_array_equal(of_spot, of_plain)


def test_all_beyond_a_rim_of_the_marked_stays_as_it_is(tiny_plan, painter):
    one = breast()
    healthy = repaint(painter, one, one.mask, tiny_plan, CPU)
    changed = healthy != image_of(one)
    near = np.zeros_like(one.mask)
    near[27:39, 14:28] = True  # a rim of one pixel: 64 / 64
    assert changed[one.mask].all()
    assert not changed[~near].any()


@pytest.mark.parametrize("what", ["nothing marked", "all marked", "no breast"])
def test_an_image_without_cut_or_without_tissue_stays_as_it_is(tiny_plan, painter, what):
    one = breast()
    marked = np.full_like(one.mask, what != "nothing marked")
    if what == "no breast":
        one = one._replace(breast_mask=np.zeros_like(one.breast_mask))
    np.testing.assert_array_equal(repaint(painter, one, marked, tiny_plan, CPU), image_of(one))


def test_background_stays_black_where_a_region_touches_the_skin(tiny_plan, painter):
    one = breast()
    one.mask[:] = False
    one.mask[20:30, 44:56] = True
    healthy = repaint(painter, one, one.mask, tiny_plan, CPU)
    assert not healthy[~one.breast_mask].any()


def test_a_cut_too_large_for_one_piece_of_texture_gets_several(tiny_plan, painter):
    one = breast()
    one.mask[4:60, 14:46] = True
    healthy = repaint(painter, one, one.mask, tiny_plan, CPU)
    rows = np.abs(np.diff(healthy, axis=1))[10:54, 20:40].mean(axis=1)
    assert rows.min() > 0.01, "a painter without texture leaves a smooth patch"


def test_the_same_input_gives_the_same_bits(tiny_plan, painter):
    one = breast()
    first, second = (repaint(painter, one, one.mask, tiny_plan, CPU) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_hole_is_filled_as_laplace_would():
    """Against a direct solution of the discrete Laplace equation."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:33, :41]
    values = (0.02 * rows + 0.3 * np.sin(columns / 9)).astype(np.float32)
    known = np.ones(values.shape, bool)
    known[9:24, 12:30] = rng.random((15, 18)) < 0.02
    filled = fill_smoothly(values, known)
    np.testing.assert_array_equal(filled[known], values[known])
    assert np.abs(filled - laplace(values, known)).max() < 0.03


def laplace(values, known):
    holes = np.argwhere(~known)
    numbers = {tuple(place): index for index, place in enumerate(holes)}
    matrix, right = lil_matrix((len(holes), len(holes))), np.zeros(len(holes))
    for index, (row, column) in enumerate(holes):
        matrix[index, index] = 4
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if known[near]:
                right[index] += values[near]
            else:
                matrix[index, numbers[near]] = -1
    solved = values.astype(np.float64)
    solved[~known] = spsolve(matrix.tocsc(), right)
    return solved


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (33, 2)])
def test_odd_and_narrow_shapes_are_filled_from_one_known_pixel(shape):
    known = np.zeros(shape, bool)
    known[0, 0] = True
    values = np.where(known, np.float32(0.7), np.float32(0.1))
    np.testing.assert_allclose(fill_smoothly(values, known), 0.7, atol=1e-6)
