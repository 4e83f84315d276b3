"""Apply DICOM lookup tables and windows to levels (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from mamfed_client.imaging.dicom_header import numbers, value

Levels = npt.NDArray[np.float64]


def apply_lut(levels: Levels, lut: Dataset) -> tuple[Levels, int] | None:
    """Look levels up in a LUT; levels outside it map to the first or last entry.

    Returns:
        The entries and the largest value that the LUT can hold; None if the LUT is unusable. If
        entries exceed the bit depth in the descriptor, the entries are believed.
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
    index = np.clip(np.rint(levels) - first, 0, entries.size - 1).astype(np.intp)
    bits = descriptor[2] if 0 < descriptor[2] <= 16 else 16
    return entries[index].astype(np.float64), max(2**bits - 1, int(entries.max()))


def _entries(lut: Dataset, count: int) -> npt.NDArray[np.uint16] | None:
    """Return LUT Data ``(count,)``: 16-bit entries, or 8-bit entries packed two to a word."""
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


def apply_window(levels: Levels, centre: float, width: float, function: str) -> Levels | None:
    """Apply a window (PS3.3 C.11.2.1.2, C.11.2.1.3) and return 0..1; None if it has no width.

    A LINEAR window of width 1 counts as without width: DICOM allows this threshold, but it cannot
    show a breast.
    """
    if function not in ("SIGMOID", "LINEAR_EXACT"):
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return None
    if function == "SIGMOID":
        exponent = np.clip(-4 * (levels - centre) / width, -700, 700)  # exp overflows past 709
        return np.asarray(1 / (1 + np.exp(exponent)))
    return np.clip((levels - centre) / width + 0.5, 0, 1)
