"""How a DICOM header says that pixels are stored."""

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
        allocated: Bits that a pixel takes up: 8 or 16.
        stored: How many of them are its value.
        high: The value's highest bit, counted from 0.
        signed: Whether the value is a two's complement.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool


def read_layout(dataset: Dataset) -> Layout:
    """Read and check how pixels are stored.

    Raises:
        Refusal: Something is missing or contradictory, or the image is too large, in colour, of
            several frames or of other than 8 or 16 bits a pixel.
    """
    rows, columns = _size(dataset)
    for keyword, several in (("SamplesPerPixel", "colours"), ("NumberOfFrames", "frames")):
        if (number := _integer(dataset, keyword, 1)) != 1:
            raise FileRejected(Reason.UNSUPPORTED_IMAGE, f"{number} {several}")
    allocated = _integer(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, f"{allocated} bits a pixel; 8 or 16 are read")
    stored = _integer(dataset, "BitsStored", allocated)
    high = _integer(dataset, "HighBit", stored - 1)
    if not 1 <= stored <= high + 1 <= allocated:
        found = f"{stored} bits up to bit {high} in {allocated} allocated"
        raise FileRejected(Reason.UNREADABLE_IMAGE, found)
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
    """Return a data element, or None where there is none.

    Raises:
        Refusal: Its bytes make no sense; pydicom looks at them only now.
    """
    try:
        return dataset[keyword] if keyword in dataset else None
    except MemoryError:
        raise
    except Exception:  # nine classes come out of pydicom, bare zlib.error and TypeError too
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"{keyword} cannot be read") from None


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    found = element(dataset, keyword)
    value = None if found is None else found.value
    if value in (None, "") and default is not None:
        return default
    try:
        return int(value)  # type: ignore[arg-type]  # None is a TypeError as well
    except (TypeError, ValueError, OverflowError):
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"{keyword} is not one whole number") from None
