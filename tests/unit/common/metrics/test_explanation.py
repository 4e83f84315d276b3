"""Whether a redrawn lesion is tissue, by hand on small images."""

import numpy as np
import pytest

from mamfed_common.metrics.explanation import judge_redrawn
from mamfed_common.transforms.sample import FULL_SCALE, Sample

SIZE = 40


def sample(ring=(0.4, 0.6), lesion=1.0, side=4, breast_mask=None):
    """A square lesion in stripes of two intensities, which fill the breast."""
    image = np.full((SIZE, SIZE), ring[0])
    image[:, ::2] = ring[1]
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10 : 10 + side, 10 : 10 + side] = True
    image[mask] = lesion
    breast = np.ones((SIZE, SIZE), bool) if breast_mask is None else breast_mask
    return Sample(np.rint(image * FULL_SCALE).astype(np.uint16), breast, mask, "x")


def redrawn(of, value):
    image = of.image / np.float32(FULL_SCALE)
    return np.where(of.mask, np.float32(value), image)


@pytest.mark.parametrize(
    ("value", "as_tissue", "gap"), [(0.5, True, 0.0), (0.3, False, -0.2), (0.8, False, 0.3)]
)
def test_a_lesion_is_tissue_where_its_mean_lies_within_that_of_the_ring(value, as_tissue, gap):
    one = sample()
    # The ring is 3 pixels wide: rows and columns 7 to 16, as many of 0.4 as of 0.6, median 0.5.
    (lesion,) = judge_redrawn(one, redrawn(one, value), one.mask)
    assert lesion.as_tissue is as_tissue
    assert lesion.minus_ring == pytest.approx(gap, abs=1e-4)


def test_the_ring_ends_at_the_breast_and_leaves_other_lesions_out():
    breast_mask = np.zeros((SIZE, SIZE), bool)
    breast_mask[8:, 8:] = True
    one = sample(breast_mask=breast_mask)
    one.image[:8] = one.image[:, :8] = FULL_SCALE
    one.mask[10:14, 15:17] = True
    one.image[10:14, 15:17] = FULL_SCALE
    # Rows and columns 8 to 16 without the two lesions: five columns of 0.6, four of 0.4.
    (lesion,) = judge_redrawn(one, redrawn(one, 0.7), one.mask)  # the other has 8 pixels only
    assert lesion.as_tissue is False, "neither skin nor the other lesion is tissue"
    assert lesion.minus_ring == pytest.approx(0.1, abs=1e-4)


def test_a_larger_lesion_has_a_wider_ring():
    one = sample(side=12)
    # Equivalent radius 6.8, half of it 3.4: 3 pixels. Bright tissue begins at the fourth.
    one.image[:7] = FULL_SCALE
    (lesion,) = judge_redrawn(one, redrawn(one, 0.5), one.mask)
    assert lesion.minus_ring == pytest.approx(0, abs=1e-4)
    wide = one._replace(mask=one.mask | np.roll(one.mask, 2, axis=1))
    (lesion,) = judge_redrawn(wide, redrawn(wide, 0.5), wide.mask)
    assert lesion.minus_ring == pytest.approx(-0.1, abs=1e-4), "4 pixels reach the bright rows"


def test_what_is_small_or_was_not_found_is_not_judged():
    one = sample(side=2)
    assert judge_redrawn(one, redrawn(one, 0.5), one.mask) == ()
    one = sample()
    nothing = np.zeros_like(one.mask)
    assert judge_redrawn(one, redrawn(one, 0.5), nothing) == ()
    nothing[10, 10] = True  # 1 of 16 pixels
    assert judge_redrawn(one, redrawn(one, 0.5), nothing) == ()
    nothing[10, 11] = True
    assert len(judge_redrawn(one, redrawn(one, 0.5), nothing)) == 1
    surrounded = one._replace(breast_mask=one.mask)
    assert judge_redrawn(surrounded, redrawn(one, 0.5), one.mask) == (), "no ring"
