"""A mammogram -> the sample that training sees."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.breast_mask import BreastView, enlarged, find_breast_mask, seen
from mamfed_client.imaging.geometry import Transform, choose_transform
from mamfed_client.imaging.mammogram import Grey, Mammogram, Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.transforms.sample import FULL_SCALE, Sample

__all__ = [
    "PREPARE_VERSION",
    "ImageAnalysis",
    "Transform",
    "analyse",
    "find_breast_mask",
    "prepare",
]

PREPARE_VERSION = 2
"""To be raised with every change that makes other samples of the same files."""

BLACK_SHARE = 0.005
WHITE_SHARE = 0.998
"""Shares of the breast that are darker than 0 and than 1; some calcifications lie above."""
LEVELS_LOOKED_AT = 500_000


class ImageAnalysis(NamedTuple):
    """What is known of an image before it is prepared; checks and preparation share it.

    Attributes:
        view: The image and its breast on a small view.
        darker: ``(65536,)`` int64: how many pixels inside the breast have each grey level or a
            darker one, on every n-th row and column of large images.
    """

    view: BreastView
    darker: npt.NDArray[np.int64]


def analyse(mammogram: Mammogram) -> ImageAnalysis:
    """Find the breast and count its grey levels.

    Raises:
        Refusal: No breast is found.
    """
    view = seen(mammogram.grey, mammogram.valid)
    return ImageAnalysis(view, _darker(mammogram.grey, mammogram.valid, view.breast))


def prepare(
    mammogram: Mammogram,
    mask: Mask | None,
    size: int,
    name: str = "",
    look: ImageAnalysis | None = None,
) -> tuple[Sample, Transform]:
    """Crop to the breast, put the chest wall left, rescale and normalise.

    Args:
        mammogram: ``(H, W)`` grey levels, any scale. Its padding is outside the breast.
        mask: ``(H, W)`` bool, true on malignant findings. What it marks counts as breast, so that
            no finding is cut off, but for what it marks on padding.
        size: Side of the sample in pixels.
        name: What the site calls the image.
        look: What :func:`analyse` has said of the mammogram; None looks now.

    Raises:
        Refusal: No breast is found, or the mask marks nothing but padding.
    """
    grey, valid = mammogram.grey, mammogram.valid
    finding = _on_the_image(mask, valid)
    look = look or analyse(mammogram)
    breast = look.view.breast
    transform = choose_transform(breast, mammogram.facts.laterality, size, grey.shape, finding)
    image = rescale_intensity(transform.apply(grey), *_ends(look.darker))
    breast_mask, small_mask = breast_and_mask(transform, breast, valid, finding)
    image *= breast_mask
    return Sample(image, breast_mask, small_mask, name), transform


def _on_the_image(mask: Mask | None, valid: Mask | None) -> Mask | None:
    """Take off what a roughly drawn outline marks beyond the image."""
    if mask is None or valid is None:
        return mask
    finding: Mask = mask & valid
    if mask.any() and not finding.any():
        raise FileRejected(Reason.EMPTY_MASK, "it marks nothing but the image's padding")
    return finding


def black_and_white(grey: Grey, valid: Mask | None, breast: Mask) -> tuple[int, int]:
    """Take percentiles of the breast's grey levels, on every n-th row and column of large images.

    A breast half of which is white, as a film's may be, still has two levels.

    Args:
        grey: ``(H, W)`` grey levels.
        valid: ``(H, W)`` bool, false on padding; None where there is none.
        breast: ``(h, w)`` bool: the breast on a view of the image.

    Raises:
        Refusal: All of the breast is of one level.
    """
    return _ends(_darker(grey, valid, breast))


def _darker(grey: Grey, valid: Mask | None, breast: Mask) -> npt.NDArray[np.int64]:
    step = max(1, math.isqrt(grey.size // LEVELS_LOOKED_AT))
    levels = grey[::step, ::step]
    inside = enlarged(breast, levels.shape)
    if valid is not None:
        inside &= valid[::step, ::step]
    return np.cumsum(np.bincount(levels[inside], minlength=FULL_SCALE + 1))


def _ends(darker: npt.NDArray[np.int64]) -> tuple[int, int]:
    black, white = np.searchsorted(darker, (BLACK_SHARE * darker[-1], WHITE_SHARE * darker[-1]))
    if not white > black:
        raise FileRejected(Reason.NO_BREAST, "the breast is flat")
    return int(black), int(white)


def rescale_intensity(image: Grey, black: int, white: int) -> Grey:
    """Bring black to 0 and white to 65535; OpenCV clips at both ends of uint16."""
    levels = np.arange(FULL_SCALE + 1, dtype=np.uint16)
    table = cv2.multiply(cv2.subtract(levels, float(black)), FULL_SCALE / (white - black))
    brought: Grey = cv2.LUT(image, table)
    return brought


def breast_and_mask(
    transform: Transform, breast: Mask, valid: Mask | None, finding: Mask | None
) -> tuple[Mask, Mask]:
    """Bring the breast and its findings to the sample's grid, both ``(size, size)`` bool.

    Args:
        transform: The way there.
        breast: ``(h, w)`` bool: the breast on a view of the image.
        valid: ``(H, W)`` bool, false on padding; None where there is none.
        finding: ``(H, W)`` bool, false on padding; None where there is none.
    """
    breast_mask = transform.apply_view(breast)
    if valid is not None:
        breast_mask &= transform.apply_strictly(valid)
    if finding is None:
        return breast_mask, np.zeros_like(breast_mask)
    mask = transform.apply_mask(finding)
    breast_mask |= mask
    return breast_mask, mask
