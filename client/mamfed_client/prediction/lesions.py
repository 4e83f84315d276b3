"""Marked regions of a probability map, on the image file's own pixel grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mamfed_client.imaging.geometry import Box
from mamfed_client.imaging.mammogram import Mask, Pixels
from mamfed_common.metrics.detection import region_scores, regions_of

MOST_LESIONS = 100
"""Maximum regions listed per image; a noisy map of an untrained network has thousands."""


class Lesion(NamedTuple):
    """One marked region (8-connected). Rows and columns are counted from 0 at the top left.

    Attributes:
        centre_row: Row of its centre of mass.
        centre_column: Column of its centre of mass.
        box: Its bounding box: first row, row after the last, first column, column after the last.
        pixels: Its area in pixels of the image file.
        area_mm2: Its area on the detector or film, not corrected for magnification; None if the
            spacing is unknown.
        score: Mean probability of its pixels, 0..1, as in the FROC curve.
        peak: Highest probability of its pixels.
    """

    centre_row: float
    centre_column: float
    box: Box
    pixels: int
    area_mm2: float | None
    score: float
    peak: float


class MarkedRegions(NamedTuple):
    """The marked regions of an image.

    Attributes:
        mask: ``(H, W)`` bool.
        lesions: Its regions, highest score first; at most :data:`MOST_LESIONS`.
        left_out: Number of further regions.
        shapes: The pixels of each lesion within its box, ``(h, w)`` bool.
    """

    mask: Mask
    lesions: tuple[Lesion, ...]
    left_out: int
    shapes: tuple[Mask, ...] = ()


def mark(probability: Pixels, threshold: float, spacing_mm: float | None) -> MarkedRegions:
    """Mark the pixels that reach a threshold.

    Args:
        probability: ``(H, W)`` float32 in 0..1, on the image file's grid.
        threshold: Lowest probability at which a pixel is marked.
        spacing_mm: Distance between pixel centres.
    """
    mask: Mask = probability >= threshold
    box = Box.around(mask)
    if box is None:
        return MarkedRegions(mask, (), 0)
    part = (slice(box.top, box.bottom), slice(box.left, box.right))
    regions = regions_of(mask[part])
    scores = region_scores(probability[part], regions)
    boxes = ndimage.find_objects(regions.labels)
    strongest = np.lexsort((np.arange(1, len(scores)), -scores[1:]))[:MOST_LESIONS] + 1
    shapes = tuple(regions.labels[boxes[number - 1]] == number for number in strongest)
    lesions = tuple(
        _lesion(
            shape,
            probability[part][boxes[number - 1]],
            (box.top + boxes[number - 1][0].start, box.left + boxes[number - 1][1].start),
            spacing_mm,
        )
        for number, shape in zip(strongest, shapes, strict=True)
    )
    return MarkedRegions(mask, lesions, regions.last - len(lesions), shapes)


def _lesion(
    region: Mask, probability: Pixels, corner: tuple[int, int], spacing_mm: float | None
) -> Lesion:
    """Measure a region within its box, whose upper left pixel is ``corner``."""
    rows, columns = np.nonzero(region)
    (top, left), (height, width), inside = corner, region.shape, probability[region]
    return Lesion(
        centre_row=top + float(rows.mean()),
        centre_column=left + float(columns.mean()),
        box=Box(top, top + height, left, left + width),
        pixels=len(rows),
        area_mm2=None if spacing_mm is None else len(rows) * spacing_mm**2,
        score=float(inside.mean(dtype=np.float64)),
        peak=float(inside.max()),
    )
