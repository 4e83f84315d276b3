"""What decoded images and masks may be, told from what they can only be by mistake.

Each check is a small function that returns nothing where all is fine, a doubt where a person should
look, and raises a refusal where no mammogram or finding looks so. Thresholds stand beside their
checks with the figures that they rest on (docs/decisions/0036).
"""

from __future__ import annotations

from mamfed_client.doubts import Doubts
from mamfed_client.mammogram import Mask
from mamfed_client.plausibility import masks
from mamfed_client.plausibility.pair import pair_of
from mamfed_client.preprocess import Look

__all__ = ["judge_mask"]


def judge_mask(mask: Mask, look: Look) -> Doubts:
    """Hold a mask ``(H, W)``, not empty, against its image.

    Raises:
        Refusal: No finding looks so.
    """
    pair = pair_of(mask, look)
    return tuple(found for check in masks.CHECKS if (found := check(pair)) is not None)
