"""DICOM Segmentation objects -> masks (PS3.3 C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mamfed_client.annotations.outlines import Outlines, unreadable
from mamfed_client.annotations.references import referenced, shown_image
from mamfed_client.mammogram import MAX_PIXELS, Mask

MAX_TOTAL_PIXELS = 10 * MAX_PIXELS


def read(dataset: Dataset, image_name: str) -> Outlines:
    """Unite the frames of all segments that lie on the image.

    A FRACTIONAL frame marks the pixels of at least half of Maximum Fractional Value (0062,000E).

    Raises:
        Refusal: Its pixel data is compressed, cut short, too large or of another type, or it
            segments several images of which none is named as the image's file.
    """
    frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns
    if frames < 1 or not 0 < frames * rows * columns <= MAX_TOTAL_PIXELS:
        raise unreadable(f"a segmentation of {frames} x {rows} x {columns} pixels")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise unreadable("a compressed segmentation; uncompressed ones are read")
    mask: Mask = np.zeros((rows, columns), dtype=np.bool_)
    for number in _frames_on(dataset, frames, image_name):
        mask |= _frame(dataset, number, rows * columns).reshape(rows, columns)
    return Outlines(masks=(mask,))


def _frames_on(dataset: Dataset, frames: int, image_name: str) -> Iterator[int]:
    """List the frames, from 0, that were derived from the image or that name no image."""
    shared = _sources(dataset, "SharedFunctionalGroupsSequence")
    own = _sources(dataset, "PerFrameFunctionalGroupsSequence")
    sources = [*own, *[frozenset[str]()] * (frames - len(own))]
    image = shown_image(frozenset().union(*shared, *sources), image_name)
    return (n for n in range(frames) if not sources[n] or image in sources[n])


def _sources(dataset: Dataset, groups: str) -> list[frozenset[str]]:
    """Collect each functional group's source images (PS3.3 C.7.6.16.2.6)."""
    return [
        referenced(
            image
            for derivation in group.get("DerivationImageSequence") or ()
            for image in derivation.get("SourceImageSequence") or ()
        )
        for group in dataset.get(groups) or ()
    ]


def _frame(dataset: Dataset, number: int, size: int) -> npt.NDArray[np.bool_]:
    kind = dataset.get("SegmentationType")
    if kind == "BINARY" and dataset.BitsAllocated == 1:
        return _bits(dataset.PixelData, number * size, size)
    if kind == "FRACTIONAL" and dataset.BitsAllocated == 8:
        values = _bytes(dataset.PixelData, number * size, (number + 1) * size)
        return values >= int(dataset.MaximumFractionalValue) / 2
    raise unreadable("a segmentation that is neither BINARY of 1 bit nor FRACTIONAL of 8")


def _bits(data: bytes, first: int, size: int) -> npt.NDArray[np.bool_]:
    """Unpack bits, a byte's lowest first; a frame may start within a byte (PS3.5 8.1.1)."""
    packed = _bytes(data, first // 8, -(-(first + size) // 8))
    bits = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + size]
    return bits.astype(np.bool_)


def _bytes(data: bytes, start: int, stop: int) -> npt.NDArray[np.uint8]:
    if len(data) < stop:
        raise unreadable("a segmentation that is cut short")
    return np.frombuffer(data[start:stop], dtype=np.uint8)
