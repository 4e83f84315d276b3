"""The pixel storage layout that a DICOM header declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from mamfed_client.imaging.mammogram import MAX_PIXELS
from mamfed_client.imaging.rejections import FileRejected, Reason


@dataclass(frozen=True, slots=True)
class Layout:
    """The pixels of a single grey frame (PS3.3 C.7.6.3.1, PS3.5 8.1.1).

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        allocated: Bits allocated per pixel: 8 or 16.
        stored: Bits of the value itself.
        high: The value's highest bit, counted from 0.
        signed: Whether the value is in two's complement.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool


def read_layout(dataset: Dataset) -> Layout:
    """Read and check the storage layout.

    Raises:
        FileRejected: An element is missing or contradictory, or the image is too large, in colour,
            multi-frame, or not of 8 or 16 bits per pixel.
    """
    rows, columns = _size(dataset)
    for keyword, noun in (("SamplesPerPixel", "colours"), ("NumberOfFrames", "frames")):
        if (number := _integer(dataset, keyword, 1)) != 1:
            raise FileRejected(Reason.UNSUPPORTED_IMAGE, f"{number} {noun}")
    allocated = _integer(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        detail = f"{allocated} bits per pixel; supported are 8 and 16"
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, detail)
    stored = _integer(dataset, "BitsStored", allocated)
    high = _integer(dataset, "HighBit", stored - 1)
    if not 1 <= stored <= high + 1 <= allocated:
        detail = f"{stored} bits up to bit {high} in {allocated} allocated"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail)
    signed = _integer(dataset, "PixelRepresentation", 0) == 1
    return Layout(rows, columns, allocated, stored, high, signed)


def _size(dataset: Dataset) -> tuple[int, int]:
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if rows < 1 or columns < 1:
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"an image of {columns} x {rows} pixels")
    if rows * columns > MAX_PIXELS:
        raise FileRejected(Reason.TOO_LARGE, f"{columns} x {rows} pixels; {MAX_PIXELS} are read")
    return rows, columns


def element(dataset: Dataset, keyword: str) -> Any:
    """Return a data element, or None if it is absent.

    Raises:
        FileRejected: Its bytes cannot be parsed, which pydicom does only on access.
    """
    try:
        return dataset[keyword] if keyword in dataset else None
    except MemoryError:
        raise
    except Exception:  # pydicom raises nine classes, including bare zlib.error and TypeError
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"{keyword} cannot be read") from None


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    data_element = element(dataset, keyword)
    value = None if data_element is None else data_element.value
    if value in (None, "") and default is not None:
        return default
    try:
        return int(value)  # type: ignore[arg-type]  # None is a TypeError as well
    except (TypeError, ValueError, OverflowError):
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"{keyword} is not a single integer") from None
