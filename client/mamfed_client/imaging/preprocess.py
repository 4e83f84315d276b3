"""Prepare a mammogram as a training sample: crop to the breast, orient, resize and normalise."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import (
    BreastView,
    find_breast,
    find_breast_mask,
    upscale_mask,
)
from mamfed_client.imaging.geometry import Transform, choose_transform
from mamfed_client.imaging.mammogram import Grey, Mammogram, Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.transforms.sample import FULL_SCALE, Sample

__all__ = [
    "PREPARE_VERSION",
    "ImageAnalysis",
    "Transform",
    "analyse",
    "check_preparable",
    "find_breast_mask",
    "prepare",
]

PREPARE_VERSION = 2
"""Increase whenever a change alters the samples prepared from the same files."""

BLACK_SHARE = 0.005
WHITE_SHARE = 0.998
"""Quantiles of the breast's grey levels that map to 0 and 1; some calcifications exceed 1."""
MAX_COUNTED_PIXELS = 500_000


class ImageAnalysis(NamedTuple):
    """Breast and histogram of an image, shared by plausibility checks and preparation.

    Attributes:
        view: The image and its breast on a small view.
        darker: ``(65536,)`` int64: for each grey level, the number of breast pixels at or below it,
            counted on every n-th row and column of large images.
    """

    view: BreastView
    darker: npt.NDArray[np.int64]


def analyse(mammogram: Mammogram) -> ImageAnalysis:
    """Find the breast and count its grey levels.

    Raises:
        FileRejected: No breast was found.
    """
    view = find_breast(mammogram.grey, mammogram.valid)
    return ImageAnalysis(view, _cumulative_counts(mammogram.grey, mammogram.valid, view.breast))


def prepare(
    mammogram: Mammogram,
    mask: Mask | None,
    size: int,
    name: str = "",
    analysis: ImageAnalysis | None = None,
) -> tuple[Sample, Transform]:
    """Crop to the breast, place the chest wall on the left, resize and normalise.

    Args:
        mammogram: ``(H, W)`` grey levels, any scale. Its padding counts as outside the breast.
        mask: ``(H, W)`` bool, true on malignant findings. Marked pixels count as breast, so that no
            finding is cropped, except where they lie on padding.
        size: Side of the sample in pixels.
        name: The site's own name for the image.
        analysis: Result of :func:`analyse` for the mammogram; None computes it.

    Raises:
        FileRejected: No breast was found, or the mask marks only padding.
    """
    grey, valid = mammogram.grey, mammogram.valid
    finding = _without_padding(mask, valid)
    analysis = analysis or analyse(mammogram)
    breast = analysis.view.breast
    transform = choose_transform(breast, mammogram.facts.laterality, size, grey.shape, finding)
    image = rescale_intensity(transform.apply(grey), *_intensity_range(analysis.darker))
    breast_mask, small_mask = transform_masks(transform, breast, valid, finding)
    image *= breast_mask
    return Sample(image, breast_mask, small_mask, name), transform


def check_preparable(mammogram: Mammogram, mask: Mask | None, analysis: ImageAnalysis) -> None:
    """Reject what :func:`prepare` would reject, without making a sample.

    Raises:
        FileRejected: The breast is flat, or the mask marks only padding.
    """
    _without_padding(mask, mammogram.valid)
    _intensity_range(analysis.darker)


def _without_padding(mask: Mask | None, valid: Mask | None) -> Mask | None:
    """Remove the part of a roughly drawn outline that lies on padding."""
    if mask is None or valid is None:
        return mask
    finding: Mask = mask & valid
    if mask.any() and not finding.any():
        raise FileRejected(Reason.EMPTY_MASK, "it marks nothing but the image's padding")
    return finding


def intensity_range(grey: Grey, valid: Mask | None, breast: Mask) -> tuple[int, int]:
    """Return the grey levels that become black and white: percentiles inside the breast.

    The percentiles are taken on every n-th row and column of large images. They differ even if
    half of the breast is white, as on some films.

    Args:
        grey: ``(H, W)`` grey levels.
        valid: ``(H, W)`` bool, false on padding; None if there is none.
        breast: ``(h, w)`` bool: the breast on a view of the image.

    Raises:
        FileRejected: The whole breast has a single grey level.
    """
    return _intensity_range(_cumulative_counts(grey, valid, breast))


def _cumulative_counts(grey: Grey, valid: Mask | None, breast: Mask) -> npt.NDArray[np.int64]:
    step = max(1, math.isqrt(grey.size // MAX_COUNTED_PIXELS))
    levels = grey[::step, ::step]
    inside = upscale_mask(breast, levels.shape)
    if valid is not None:
        inside &= valid[::step, ::step]
    return np.cumsum(np.bincount(levels[inside], minlength=FULL_SCALE + 1))


def _intensity_range(darker: npt.NDArray[np.int64]) -> tuple[int, int]:
    black, white = np.searchsorted(darker, (BLACK_SHARE * darker[-1], WHITE_SHARE * darker[-1]))
    if not white > black:
        raise FileRejected(Reason.NO_BREAST, "the breast is flat")
    return int(black), int(white)


def rescale_intensity(image: Grey, black: int, white: int) -> Grey:
    """Scale grey levels so that black becomes 0 and white 65535; OpenCV clips to uint16."""
    levels = np.arange(FULL_SCALE + 1, dtype=np.uint16)
    table = cv2.multiply(cv2.subtract(levels, float(black)), FULL_SCALE / (white - black))
    rescaled: Grey = cv2.LUT(image, table)
    return rescaled


def transform_masks(
    transform: Transform, breast: Mask, valid: Mask | None, finding: Mask | None
) -> tuple[Mask, Mask]:
    """Transform the breast and its findings to the sample's grid.

    Args:
        transform: Transform from the image to the sample.
        breast: ``(h, w)`` bool: the breast on a view of the image.
        valid: ``(H, W)`` bool, false on padding; None if there is none.
        finding: ``(H, W)`` bool, false on padding; None if there is none.

    Returns:
        The breast mask and the finding mask, both ``(size, size)`` bool.
    """
    breast_mask = transform.apply_view(breast)
    if valid is not None:
        breast_mask &= transform.apply_strictly(valid)
    if finding is None:
        return breast_mask, np.zeros_like(breast_mask)
    mask = transform.apply_mask(finding)
    breast_mask |= mask
    return breast_mask, mask
