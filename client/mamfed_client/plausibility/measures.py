"""What a site is judged by as a whole, remembered of each image."""

from __future__ import annotations

from typing import NamedTuple

from mamfed_client.imaging.mammogram import Laterality


class Measures(NamedTuple):
    """Measures of an image and of its mask; JSON can hold them as a list.

    Attributes:
        plain_share: Share of the breast at one grey level, 0..1.
        chest_wall: On which side of the picture the chest wall clearly is; None where not.
        mask_of_breast: Share of the breast that the mask marks, 0..1; 0 without a mask.
        mask_pixels: How many pixels the mask marks.
        mask_rows: Height of the box around them.
        mask_columns: Its width.
        mask_fit: Best overlap of the mask with all that is brighter than some grey level, 0..1.
    """

    plain_share: float = 0.0
    chest_wall: Laterality | None = None
    mask_of_breast: float = 0.0
    mask_pixels: int = 0
    mask_rows: int = 0
    mask_columns: int = 0
    mask_fit: float = 0.0
