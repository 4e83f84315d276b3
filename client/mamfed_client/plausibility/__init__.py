"""Check whether decoded images and masks are plausible mammograms and findings.

Each check is a small function. It returns None if it finds nothing wrong, returns a doubt if a
person should review the file, and raises ``FileRejected`` if it cannot be a mammogram or finding.
Thresholds are documented next to the checks, with their evidence in docs/decisions/0040.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Mammogram, Mask
from mamfed_client.imaging.preprocess import ImageAnalysis
from mamfed_client.plausibility import images, masks
from mamfed_client.plausibility.image_features import measure_image
from mamfed_client.plausibility.mask_features import measure_mask
from mamfed_client.plausibility.measures import Measures

__all__ = ["Judgement", "Measures", "judge_image", "judge_mask"]


class Judgement(NamedTuple):
    """The result of the checks.

    Attributes:
        doubts: Possible problems.
        measures: Measurements for checks across the site's images.
    """

    doubts: Doubts
    measures: Measures


def judge_image(mammogram: Mammogram, analysis: ImageAnalysis) -> Judgement:
    """Check an image by itself; its facts provide the view.

    Raises:
        FileRejected: The image cannot be a mammogram.
    """
    image = measure_image(mammogram.grey.shape, mammogram.facts.view, analysis)
    doubts = tuple(doubt for check in images.CHECKS if (doubt := check(image)) is not None)
    chest_wall = None if doubts else image.chest_wall  # meaningless if, say, the breast is lying
    return Judgement(doubts, Measures(image.plain_share, chest_wall))


def judge_mask(
    mask: Mask, analysis: ImageAnalysis, judged: Judgement, outlines: int = 0
) -> Judgement:
    """Check a mask against its image, and add the result to the image's.

    Args:
        mask: ``(H, W)`` bool, not empty, true on malignant findings.
        analysis: Analysis of the image.
        judged: Result of :func:`judge_image`.
        outlines: Number of outlines that the mask was drawn from; 0 if it was not drawn.

    Raises:
        FileRejected: The mask cannot be a finding.
    """
    features = measure_mask(mask, analysis, outlines)
    for check_certain in masks.CERTAIN_CHECKS:
        check_certain(features)
    doubts = tuple(doubt for check in masks.CHECKS if (doubt := check(features)) is not None)
    box = Box.around(mask)
    assert box is not None
    measures = judged.measures._replace(
        mask_of_breast=features.of_breast,
        mask_pixels=int(np.count_nonzero(mask)),
        mask_rows=box.bottom - box.top,
        mask_columns=box.right - box.left,
        mask_fit=features.fit,
    )
    return Judgement((*doubts, *judged.doubts), measures)
