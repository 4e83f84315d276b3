"""What a map of probabilities marks, region by region, on the image file's own pixel grid."""

from __future__ import annotations

from typing import NamedTuple

from scipy import ndimage

from mamfed_client.mammogram import Mask, Pixels
from mamfed_client.transform import Box
from mamfed_common.detection import region_scores, regions_of

MOST_LESIONS = 100
"""Lesions listed of an image; a map of noise, as an untrained network gives, has thousands."""


class Lesion(NamedTuple):
    """One connected region (8) of what is marked. Rows and columns count from 0 at the top left.

    Attributes:
        centre_row: Of its centre of mass.
        centre_column: Likewise.
        box: The smallest rectangle around it: first row, row after the last, first column, column
            after the last.
        pixels: Its area in pixels of the image file.
        area_mm2: Its area on the detector or film, without regard to magnification; None where
            the file tells no spacing.
        score: Mean probability of its pixels, 0..1, as the FROC curve ranks regions.
        peak: Highest probability of its pixels.
    """

    centre_row: float
    centre_column: float
    box: Box
    pixels: int
    area_mm2: float | None
    score: float
    peak: float


class Marked(NamedTuple):
    """What a threshold marks of an image.

    Attributes:
        mask: ``(H, W)`` bool.
        lesions: Its regions, the highest score first; at most :data:`MOST_LESIONS`.
        left_out: How many regions more there are.
    """

    mask: Mask
    lesions: tuple[Lesion, ...]
    left_out: int


def mark(probability: Pixels, threshold: float, spacing_mm: float | None) -> Marked:
    """Mark what reaches a threshold.

    Args:
        probability: ``(H, W)`` float32 in 0..1, on the image file's grid.
        threshold: From which probability a pixel is marked.
        spacing_mm: Distance of pixel centres.
    """
    mask: Mask = probability >= threshold
    box = Box.around(mask)
    if box is None:
        return Marked(mask, (), 0)
    part = (slice(box.top, box.bottom), slice(box.left, box.right))
    lesions = _lesions(mask[part], probability[part], box, spacing_mm)
    return Marked(mask, tuple(lesions[:MOST_LESIONS]), max(0, len(lesions) - MOST_LESIONS))


def _lesions(
    mask: Mask, probability: Pixels, around: Box, spacing_mm: float | None
) -> list[Lesion]:
    """Measure the regions of the part of an image that holds them all, the strongest first."""
    regions = regions_of(mask)
    numbers = range(1, regions.last + 1)
    scores = region_scores(probability, regions)
    peaks = ndimage.maximum(probability, regions.labels, numbers)
    centres = ndimage.center_of_mass(mask, regions.labels, numbers)
    boxes = ndimage.find_objects(regions.labels)
    pixel_mm2 = None if spacing_mm is None else spacing_mm**2
    lesions = [
        Lesion(
            centre_row=float(row) + around.top,
            centre_column=float(column) + around.left,
            box=Box(
                rows.start + around.top,
                rows.stop + around.top,
                columns.start + around.left,
                columns.stop + around.left,
            ),
            pixels=int(regions.pixels[number]),
            area_mm2=None if pixel_mm2 is None else int(regions.pixels[number]) * pixel_mm2,
            score=float(scores[number]),
            peak=float(peak),
        )
        for number, peak, (row, column), (rows, columns) in zip(
            numbers, peaks, centres, boxes, strict=True
        )
    ]
    return sorted(lesions, key=lambda lesion: (-lesion.score, lesion.box))
