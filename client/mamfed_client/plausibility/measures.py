"""Measurements kept for each image, for checks across all images of a site."""

from __future__ import annotations

from typing import NamedTuple

from mamfed_client.imaging.mammogram import Laterality


class Measures(NamedTuple):
    """Measurements of an image and its mask, serialisable in JSON as a list.

    Attributes:
        plain_share: Share of the breast at one grey level, 0..1.
        chest_wall: Side of the picture on which the chest wall is; None if unclear.
        mask_of_breast: Share of the breast that the mask covers, 0..1; 0 without a mask.
        mask_pixels: Number of pixels in the mask.
        mask_rows: Height of the mask's bounding box.
        mask_columns: Width of the mask's bounding box.
        mask_fit: Best overlap (IoU) of the mask with a threshold of the grey levels, 0..1.
    """

    plain_share: float = 0.0
    chest_wall: Laterality | None = None
    mask_of_breast: float = 0.0
    mask_pixels: int = 0
    mask_rows: int = 0
    mask_columns: int = 0
    mask_fit: float = 0.0
