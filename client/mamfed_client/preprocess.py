"""A mammogram -> the sample that training sees."""

from __future__ import annotations

import math

import numpy as np

from mamfed_client.breast import breast_field
from mamfed_client.mammogram import Mammogram, Mask, Pixels
from mamfed_client.rejections import Reason, Refusal
from mamfed_client.transform import Transform, fit
from mamfed_common.samples import FULL_SCALE, Sample

__all__ = ["PREPARE_VERSION", "Transform", "breast_field", "prepare"]

PREPARE_VERSION = 1
"""To be raised with every change that makes other samples of the same files."""

BLACK_PERCENTILE = 0.5
WHITE_PERCENTILE = 99.8
"""Grey levels of the breast that become 0 and 1; a few calcifications may lie above."""
LEVELS_LOOKED_AT = 500_000


def prepare(
    mammogram: Mammogram, mask: Mask | None, size: int, name: str = ""
) -> tuple[Sample, Transform]:
    """Crop to the breast, put the chest wall left, rescale and normalise.

    Args:
        mammogram: ``(H, W)`` grey levels, any scale.
        mask: ``(H, W)`` bool, true on malignant findings. What it marks counts as breast, so that
            no finding is cut off.
        size: Side of the sample in pixels.
        name: What the site calls the image.

    Raises:
        Refusal: No breast is found.
    """
    field = breast_field(mammogram.pixels)
    if mask is not None:
        field = field | mask
    transform = fit(field, mammogram.laterality, size)
    small_field = transform.apply_mask(field)
    black, white = _black_and_white(mammogram.pixels, field)
    levels = np.clip((transform.apply(mammogram.pixels) - black) / (white - black), 0, 1)
    image = np.rint(levels * np.float32(FULL_SCALE)).astype(np.uint16)
    image[~small_field] = 0
    small_mask = np.zeros_like(small_field) if mask is None else transform.apply_mask(mask)
    return Sample(image, small_field, small_mask, name), transform


def _black_and_white(pixels: Pixels, field: Mask) -> tuple[float, float]:
    """Take percentiles of the breast's grey levels, on every n-th row and column of large images.

    A breast half of which is white, as a film's may be, still has two levels.
    """
    step = max(1, math.isqrt(pixels.size // LEVELS_LOOKED_AT))
    levels = pixels[::step, ::step][field[::step, ::step]]
    if not levels.size:
        levels = pixels[field]
    black, white = np.percentile(levels, (BLACK_PERCENTILE, WHITE_PERCENTILE))
    if not white > black:
        raise Refusal(Reason.NO_BREAST, "the breast is flat")
    return float(black), float(white)
