"""Stored values -> grey levels with bright tissue (the grey scale pipeline of DICOM PS3.4 N.2).

Order matters: modality LUT or rescale, then VOI LUT or window, and only then the inversion of
MONOCHROME1 (PS3.3 C.7.6.3.1.2, C.11.1, C.11.2). All of it is a function of the stored value, so
one table of all stored values is computed and looked up: 3.5 ms for 13.6 megapixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.header import frame_groups, items, numbers, text, value
from mamfed_client.mammogram import Grey, Mask
from mamfed_client.rejections import Reason, Refusal
from mamfed_common.samples import FULL_SCALE

Levels = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]


@np.errstate(over="ignore")
def to_grey(stored: Stored, dataset: Dataset) -> tuple[Grey, Mask | None]:
    """Make grey levels of stored values as the header says that they are to be shown.

    The VOI LUT Sequence is preferred to the window, and of several the first is taken: both mean
    alternative views of which the reader chooses (PS3.3 C.11.2), and GE writes three of each. A
    LUT or window that shows the whole image in one level, or that cannot be computed, gives way to
    the next; without any, levels are stretched from the darkest to the brightest pixel.

    Args:
        stored: ``(H, W)`` uint8, int8, uint16 or int16.
        dataset: The image's header.

    Returns:
        ``(H, W)`` uint16, 0..65535 for the whole output range of the VOI transformation, padding 0;
        and ``(H, W)`` bool, false where the file padded (PS3.3 C.7.5.1.1.2), or None where it
        did not.

    Raises:
        Refusal: All is padding.
    """
    values = _every_value(stored.dtype)
    padding = _padding(values, dataset)
    valid = _valid(stored, values, padding)
    low, high, _, _ = cv2.minMaxLoc(stored, None if valid is None else valid.view(np.uint8))
    seen = (values >= low) & (values <= high)
    shown = _shown(_modality(values, dataset), seen, dataset)
    if _is_inverted(dataset):
        shown = 1 - shown
    shown[padding] = 0
    table = np.rint(shown * FULL_SCALE).astype(np.uint16)
    # Signed too by bit pattern: OpenCV's manual offsets signed indices, version 5.0 does not.
    bit_patterns = stored.view(f"u{stored.dtype.itemsize}")
    return cv2.LUT(bit_patterns, table), valid


def _every_value(dtype: np.dtype[Any]) -> Stored:
    """Return all values of a data type, ``(256,)`` or ``(65536,)``, by their bit patterns."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def _padding(values: Stored, dataset: Dataset) -> Mask:
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


def _valid(stored: Stored, values: Stored, padding: Mask) -> Mask | None:
    """Return ``(H, W)`` bool, None where no pixel is padding."""
    if not padding.any():
        return None
    low, high = values[padding].min(), values[padding].max()
    valid: Mask = stored != low if low == high else (stored < low) | (stored > high)
    if not valid.any():
        raise Refusal(Reason.UNREADABLE_IMAGE, "every pixel is (0028,0120) Pixel Padding Value")
    return None if valid.all() else valid


def _is_inverted(dataset: Dataset) -> bool:
    """Tell whether low values are bright.

    In a mammogram Presentation LUT Shape INVERSE only repeats what MONOCHROME1 says (PS3.3
    C.8.11.3), so both together invert once.
    """
    return (
        text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or text(dataset, "PresentationLUTShape") == "INVERSE"
    )


def _modality(values: Stored, dataset: Dataset) -> Levels:
    """Apply the modality LUT or the rescale (PS3.3 C.11.1); the two exclude each other."""
    levels = values.astype(np.float64)
    for holder in (dataset, *frame_groups(dataset, "PixelValueTransformationSequence")):
        for lut in items(holder, "ModalityLUTSequence")[:1]:
            entries = _look_up(levels, lut)
            if entries is not None:
                return entries[0]
        slope, intercept = numbers(holder, "RescaleSlope"), numbers(holder, "RescaleIntercept")
        if slope and intercept and slope[0] != 0:
            return levels * slope[0] + intercept[0]
    return levels


def _shown(levels: Levels, seen: Mask, dataset: Dataset) -> Levels:
    """Apply the first VOI transformation that leaves the seen levels apart: 0..1."""
    transformations: tuple[Callable[[Levels, Dataset], Levels | None], ...] = (_voi_lut, _window)
    for holder in (dataset, *frame_groups(dataset, "FrameVOILUTSequence")):
        for transform in transformations:
            shown = transform(levels, holder)
            if shown is not None and np.ptp(shown[seen]) > 0:
                return shown
    darkest, brightest = levels[seen].min(), levels[seen].max()
    span = brightest - darkest
    if not np.isfinite(span):
        raise Refusal(Reason.UNREADABLE_IMAGE, "grey levels are not finite")
    stretched: Levels = np.clip((levels - darkest) / (span or 1), 0, 1)
    return stretched


def _voi_lut(levels: Levels, holder: Dataset) -> Levels | None:
    """Apply the first item of the VOI LUT Sequence (PS3.3 C.11.2.1.1): 0..1."""
    for lut in items(holder, "VOILUTSequence")[:1]:
        entries = _look_up(levels, lut)
        if entries is not None:
            return entries[0] / entries[1]
    return None


def _look_up(levels: Levels, lut: Dataset) -> tuple[Levels, int] | None:
    """Look levels up in a LUT; what lies outside takes the first or the last entry.

    Returns:
        The entries and the largest that the LUT could hold; None where it has no sound entries.
        Where entries exceed the bits that the descriptor names, its bits are wrong, not they.
    """
    descriptor = [int(number) for number in numbers(lut, "LUTDescriptor")]
    if len(descriptor) != 3:
        return None
    entries = _entries(lut, descriptor[0] % 65536 or 65536)  # 65536 is written as 0
    if entries is None:
        return None
    first = descriptor[1]
    if first > 32767 and levels.min() < 0:  # SS read as US
        first -= 65536
    place = np.clip(np.rint(levels) - first, 0, entries.size - 1).astype(np.intp)
    bits = descriptor[2] if 0 < descriptor[2] <= 16 else 16
    return entries[place].astype(np.float64), max(2**bits - 1, int(entries.max()))


def _entries(lut: Dataset, count: int) -> npt.NDArray[np.uint16] | None:
    """Return LUT Data ``(count,)``: 16-bit entries, or 8-bit ones two to a word."""
    data: Any = value(lut, "LUTData")
    if isinstance(data, bytes):
        is_little = lut.original_encoding[1] is not False
        data_16 = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if is_little else ">u2")
    else:
        try:
            data_16 = np.array(list(data), dtype=np.int64).astype(np.uint16)
        except (TypeError, ValueError, OverflowError):
            return None
    if data_16.size >= count:
        return data_16[:count].astype(np.uint16)
    bytes_8 = data_16.astype("<u2").view(np.uint8)
    return bytes_8[:count].astype(np.uint16) if bytes_8.size >= count else None


def _window(levels: Levels, holder: Dataset) -> Levels | None:
    """Apply the first window (PS3.3 C.11.2.1.2, C.11.2.1.3): 0..1; None where it has no width.

    A LINEAR window of width 1 is a threshold: allowed, but no picture of a breast.
    """
    centres, widths = numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth")
    if not centres or not widths:
        return None
    centre, width = centres[0], widths[0]
    function = text(holder, "VOILUTFunction").upper()
    if function not in ("SIGMOID", "LINEAR_EXACT"):
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return None
    if function == "SIGMOID":
        exponent = np.clip(-4 * (levels - centre) / width, -700, 700)  # exp overflows past 709
        return np.asarray(1 / (1 + np.exp(exponent)))
    return np.clip((levels - centre) / width + 0.5, 0, 1)
