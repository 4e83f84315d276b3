"""What decoded images and masks may be, told from what they can only be by mistake.

Each check is a small function that returns nothing where all is fine, a doubt where a person should
look, and raises a refusal where no mammogram or finding looks so. Thresholds stand beside their
checks with the figures that they rest on; all of them in docs/decisions/0040.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mamfed_client.imaging.doubts import Doubts
from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Mammogram, Mask
from mamfed_client.imaging.preprocess import ImageAnalysis
from mamfed_client.plausibility import images, masks
from mamfed_client.plausibility.measures import Measures
from mamfed_client.plausibility.pair import pair_of
from mamfed_client.plausibility.picture import picture_of

__all__ = ["Judgement", "Measures", "judge_image", "judge_mask"]


class Judgement(NamedTuple):
    """What checks found.

    Attributes:
        doubts: What may be wrong.
        measures: What the site as a whole is judged by.
    """

    doubts: Doubts
    measures: Measures


def judge_image(mammogram: Mammogram, look: ImageAnalysis) -> Judgement:
    """Judge an image by itself; its facts name the view.

    Raises:
        FileRejected: No mammogram looks so.
    """
    picture = picture_of(mammogram.grey.shape, mammogram.facts.view, look)
    doubts = tuple(found for check in images.CHECKS if (found := check(picture)) is not None)
    chest_wall = None if doubts else picture.chest_wall  # of a lying breast it says nothing
    return Judgement(doubts, Measures(picture.plain_share, chest_wall))


def judge_mask(mask: Mask, look: ImageAnalysis, judged: Judgement, outlines: int = 0) -> Judgement:
    """Hold a mask ``(H, W)``, not empty, against its image, and add to what was found of that.

    Args:
        mask: True on malignant findings.
        look: The image.
        judged: What :func:`judge_image` found.
        outlines: As how many outlines the mask was drawn, where it was drawn.

    Raises:
        FileRejected: No finding looks so.
    """
    pair = pair_of(mask, look, outlines)
    for refuse in masks.REFUSALS:
        refuse(pair)
    doubts = tuple(found for check in masks.CHECKS if (found := check(pair)) is not None)
    box = Box.around(mask)
    assert box is not None
    measures = judged.measures._replace(
        mask_of_breast=pair.of_breast,
        mask_pixels=int(np.count_nonzero(mask)),
        mask_rows=box.bottom - box.top,
        mask_columns=box.right - box.left,
        mask_fit=pair.fit,
    )
    return Judgement((*doubts, *judged.doubts), measures)
