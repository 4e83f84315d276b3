"""Which pixels a DICOM file padded, as far as the pixels agree (PS3.3 C.7.5.1.1.2).

A padding value must not occur in the image, but it does: as the densest tissue of a MONOCHROME1
image, or as a range that reaches from the air into fat.
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
"""Share of the breast that a range of padding may cover, at its edge."""
AROUND, AIR_SHARE = 7, 0.5
"""How wide a ring is looked at around the breast, and how much of it is padding that is air."""
DARKER, OTHER_AIR = 0.15, 0.1
"""Where so much is so dark beside the padding, padding is not the air; nobody looks closer."""


class ValidArea(NamedTuple):
    """What is image.

    Attributes:
        pixels: ``(H, W)`` bool, false on padding; None where there is none.
        is_declared: Whether padding is just what the header says.
        is_air: Whether padding is what surrounds the breast: black, but no edge of the image.
    """

    pixels: Mask | None = None
    is_declared: bool = True
    is_air: bool = False


def declared_padding(values: Stored, dataset: Dataset) -> Mask:
    """Tell which stored values are padding; the range includes both limits, in either order."""
    limits = numbers(dataset, "PixelPaddingValue")[:1]
    if not limits:
        return np.zeros(values.shape, dtype=bool)
    limits += numbers(dataset, "PixelPaddingRangeLimit")[:1]
    low, high = sorted((_as_stored(limits[0], dataset), _as_stored(limits[-1], dataset)))
    padding: Mask = (values >= low) & (values <= high)
    return padding


def _as_stored(limit: float, dataset: Dataset) -> int:
    """Cut a padding value to Bits Stored and give it the pixels' sign.

    Files spell it as US where the pixels are signed, or with the bits that a decoder drops.
    """
    bits = min(max(int(next(iter(numbers(dataset, "BitsStored")), 16)), 1), 16)
    cut = int(limit) & ((1 << bits) - 1)
    is_signed = text(dataset, "PixelRepresentation") == "1"
    return cut - (1 << bits) if is_signed and cut >> (bits - 1) else cut


def outside_of(stored: Stored, values: Stored, padding: Mask) -> Mask | None:
    """Return ``(H, W)`` bool, true on what the header does not call padding; None where all is so.

    Raises:
        Refusal: All is padding.
    """
    if not padding.any():
        return None
    low, high = values[padding].min(), values[padding].max()
    outside: Mask = stored != low if low == high else (stored < low) | (stored > high)
    if not outside.any():
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "every pixel is (0028,0120) Pixel Padding Value"
        )
    return None if outside.all() else outside


def believed(outside: Mask, tissue: Tissue, *, is_range: bool) -> ValidArea:
    """Hold declared padding against the pixels.

    Dark padding lies at the border: what lies inside the breast is tissue. A range of which much
    is tissue is no padding. Bright padding is believed of whole rows and columns at the edges
    alone, for a muscle can be as bright at the border.

    Args:
        outside: ``(H, W)`` bool, false on what the header calls padding.
        tissue: Of the view of every n-th pixel.
        is_range: Whether padding is declared as more than one value.
    """
    padded: Mask = ~every_nth(outside)
    if min(padded.shape) < LEAST_SIDE:
        return ValidArea(outside)
    darkest, brightest = (
        np.percentile(tissue.tones[padded], (1, 99)) if padded.any() else (1.0, 1.0)
    )
    if brightest > DARK:
        from_air_to_tissue = is_range and darkest < BRIGHT
        return ValidArea(None, is_declared=False) if from_air_to_tissue else _whole_lines(outside)
    if is_range and (padded & tissue.fine).sum() > TISSUE_SHARE * tissue.fine.sum():
        return ValidArea(None, is_declared=False)
    at_border = _joined_to_border(padded)
    has_other_air = (tissue.tones[~padded] < DARKER).mean() > OTHER_AIR
    is_air = not has_other_air and _surrounds(at_border, tissue.fine)
    if np.array_equal(at_border, padded):
        return ValidArea(outside, is_air=is_air)
    near = cv2.dilate(at_border.astype(np.uint8), np.ones((3, 3), np.uint8))
    reach = cv2.resize(near, outside.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return ValidArea(outside | (reach == 0), is_declared=False, is_air=is_air)


def _surrounds(padded: Mask, breast: Mask) -> bool:
    grown = cv2.dilate(breast.astype(np.uint8), np.ones((AROUND, AROUND), np.uint8)) > 0
    ring = grown & ~breast
    return bool(ring.any() and padded[ring].mean() > AIR_SHARE)


def _whole_lines(outside: Mask) -> ValidArea:
    """Keep as padding the outer rows and columns that are nothing else."""
    rows, columns = (np.flatnonzero(outside.any(axis=axis)) for axis in (1, 0))
    image = np.zeros_like(outside)
    image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    is_declared = bool((image == outside).all())
    return ValidArea(None if image.all() else image, is_declared)


def without_padded_lines(outside: Mask | None, view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cut the outer rows and columns off a view ``(h, w)`` that are nothing but padding."""
    if outside is None:
        return view
    seen = every_nth(outside)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return view
    return view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _joined_to_border(padded: Mask) -> Mask:
    _, pieces = cv2.connectedComponents(padded.astype(np.uint8), connectivity=8)
    edges = (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1])
    joined: Mask = padded & np.isin(pieces, np.unique(np.concatenate(edges)))
    return joined
