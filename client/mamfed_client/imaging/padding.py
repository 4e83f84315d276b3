"""Find the padding that a DICOM header declares, and verify it (PS3.3 C.7.5.1.1.2).

A padding value must not occur in the image, but in practice it does: as the densest tissue of a
MONOCHROME1 image, or as a range that reaches from air into fat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.imaging.dicom_header import numbers, text
from mamfed_client.imaging.mammogram import Mask
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tone_evidence import BRIGHT, DARK, LEAST_SIDE, Tissue, every_nth

Stored = npt.NDArray[Any]

TISSUE_SHARE = 0.05
"""Maximum share of the breast that a padding range may cover, at the breast's edge."""
RING_SIZE, AIR_SHARE = 7, 0.5
"""Padding is air if it covers more than ``AIR_SHARE`` of the ring left by dilating the breast with
a square of ``RING_SIZE`` pixels."""
DARK_TONE, OTHER_AIR = 0.15, 0.1
"""Padding is not air if more than ``OTHER_AIR`` of the other pixels are below ``DARK_TONE``."""


class ValidArea(NamedTuple):
    """The image without its padding.

    Attributes:
        pixels: ``(H, W)`` bool, false on padding; None if there is none.
        is_declared: Whether the padding is exactly what the header declares.
        is_air: Whether the padding is the dark air around the breast rather than the edge of the
            image.
    """

    pixels: Mask | None = None
    is_declared: bool = True
    is_air: bool = False


def declared_padding(values: Stored, dataset: Dataset) -> Mask:
    """Return which stored values are padding; the range includes both limits, in either order."""
    limits = numbers(dataset, "PixelPaddingValue")[:1]
    if not limits:
        return np.zeros(values.shape, dtype=bool)
    limits += numbers(dataset, "PixelPaddingRangeLimit")[:1]
    low, high = sorted((_as_stored(limits[0], dataset), _as_stored(limits[-1], dataset)))
    padding: Mask = (values >= low) & (values <= high)
    return padding


def _as_stored(limit: float, dataset: Dataset) -> int:
    """Truncate a padding value to Bits Stored and give it the pixels' sign.

    Files may write it as US although pixels are signed, or include bits that a decoder drops.
    """
    bits = min(max(int(next(iter(numbers(dataset, "BitsStored")), 16)), 1), 16)
    cut = int(limit) & ((1 << bits) - 1)
    is_signed = text(dataset, "PixelRepresentation") == "1"
    return cut - (1 << bits) if is_signed and cut >> (bits - 1) else cut


def unpadded_area(stored: Stored, values: Stored, padding: Mask) -> Mask | None:
    """Return ``(H, W)`` bool, false on declared padding; None if no pixel is padding.

    Args:
        stored: ``(H, W)`` stored values.
        values: ``(n,)`` all values of their type.
        padding: ``(n,)`` bool, true for declared values; those that no pixel has may be left out.

    Raises:
        FileRejected: Every pixel is padding.
    """
    if not padding.any():
        return None
    low, high = values[padding].min(), values[padding].max()
    unpadded: Mask = stored != low if low == high else (stored < low) | (stored > high)
    if not unpadded.any():
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "every pixel is (0028,0120) Pixel Padding Value"
        )
    return None if unpadded.all() else unpadded


def verify_padding(unpadded: Mask, tissue: Tissue, *, is_range: bool) -> ValidArea:
    """Check declared padding against the pixels.

    Dark padding must reach the border; inside the breast it is tissue. A range that covers much
    tissue is ignored. Bright padding is accepted only as entire rows and columns at the edges,
    because muscle at the border can be equally bright.

    Args:
        unpadded: ``(H, W)`` bool, false on declared padding.
        tissue: Tissue on the view that ``every_nth`` returns.
        is_range: Whether the header declares more than one padding value.
    """
    padded: Mask = ~every_nth(unpadded)
    if min(padded.shape) < LEAST_SIDE:
        return ValidArea(unpadded)
    darkest, brightest = (
        np.percentile(tissue.tones[padded], (1, 99)) if padded.any() else (1.0, 1.0)
    )
    if brightest > DARK:
        from_air_to_tissue = is_range and darkest < BRIGHT
        return ValidArea(None, is_declared=False) if from_air_to_tissue else _edge_lines(unpadded)
    if is_range and (padded & tissue.fine).sum() > TISSUE_SHARE * tissue.fine.sum():
        return ValidArea(None, is_declared=False)
    at_border = _joined_to_border(padded)
    has_other_air = (tissue.tones[~padded] < DARK_TONE).mean() > OTHER_AIR
    is_air = not has_other_air and _surrounds(at_border, tissue.fine)
    if np.array_equal(at_border, padded):
        return ValidArea(unpadded, is_air=is_air)
    near = cv2.dilate(at_border.astype(np.uint8), np.ones((3, 3), np.uint8))
    reach = cv2.resize(near, unpadded.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return ValidArea(unpadded | (reach == 0), is_declared=False, is_air=is_air)


def _surrounds(padded: Mask, breast: Mask) -> bool:
    dilated = cv2.dilate(breast.astype(np.uint8), np.ones((RING_SIZE, RING_SIZE), np.uint8)) > 0
    ring = dilated & ~breast
    return bool(ring.any() and padded[ring].mean() > AIR_SHARE)


def _edge_lines(unpadded: Mask) -> ValidArea:
    """Accept as padding only the outer rows and columns that are entirely padding."""
    rows, columns = (np.flatnonzero(unpadded.any(axis=axis)) for axis in (1, 0))
    image = np.zeros_like(unpadded)
    image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    is_declared = bool((image == unpadded).all())
    return ValidArea(None if image.all() else image, is_declared)


def without_padded_lines(unpadded: Mask | None, view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Crop from a view ``(h, w)`` the outer rows and columns that are entirely padding."""
    if unpadded is None:
        return view
    small = every_nth(unpadded)
    rows, columns = (np.flatnonzero(small.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return view
    return view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _joined_to_border(padded: Mask) -> Mask:
    """Return the connected padding that touches the border."""
    _, pieces = cv2.connectedComponents(padded.astype(np.uint8), connectivity=8)
    edges = (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1])
    joined: Mask = padded & np.isin(pieces, np.unique(np.concatenate(edges)))
    return joined
