"""Read masks from DICOM Segmentation objects (PS3.3 C.8.20)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mamfed_client.annotations.classes import ClassMeaning, kind_of
from mamfed_client.annotations.outlines import NamedMask, Outlines, unreadable
from mamfed_client.annotations.references import TargetImage, referenced, shown_image
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mask

MAX_TOTAL_PIXELS = 10 * MAX_PIXELS


def read(dataset: Dataset, image: TargetImage) -> Outlines:
    """Combine the frames of each segment that refer to the image; segments are classes.

    A FRACTIONAL frame marks pixels of at least half of Maximum Fractional Value (0062,000E).

    Raises:
        FileRejected: The pixel data are compressed, truncated, too large or of another type, or
            the object segments several images, none of which is named like the image's file.
    """
    frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns
    if frames < 1 or not 0 < frames * rows * columns <= MAX_TOTAL_PIXELS:
        raise unreadable(f"a segmentation of {frames} x {rows} x {columns} pixels")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise unreadable("a compressed segmentation; save it uncompressed")
    names = {int(s.get("SegmentNumber") or 0): _name(s) for s in _segments(dataset)}
    numbers = _segment_numbers(dataset, frames, names)
    masks: dict[str, Mask] = {}
    ours, numbers_on = _frames_on(dataset, frames, image)
    for number in numbers_on:
        name = names.get(numbers[number], "")
        mask = masks.setdefault(name, np.zeros((rows, columns), dtype=np.bool_))
        mask |= _frame(dataset, number, rows * columns).reshape(rows, columns)
    named = tuple(NamedMask(mask, name) for name, mask in masks.items())
    kinds = {str(s.get("SegmentAlgorithmType") or "") for s in _segments(dataset)}
    return Outlines(
        masks=named,
        declared=frozenset(names.values()),
        by_program=kinds == {"AUTOMATIC"},
        of_another=image.is_another(ours),
    )


def _segments(dataset: Dataset) -> Sequence[Dataset]:
    segments: Sequence[Dataset] = dataset.get("SegmentSequence") or ()
    return segments


def _name(segment: Dataset) -> str:
    """Return the label (0062,0005) or, if that says nothing, the coded type or category."""
    label = str(segment.get("SegmentLabel") or "")
    coded = [
        str(item.get("CodeMeaning") or "")
        for keyword in (
            "SegmentedPropertyTypeCodeSequence",
            "SegmentedPropertyCategoryCodeSequence",
        )
        for item in segment.get(keyword) or ()
    ]
    telling = (
        n for n in (label, *coded) if kind_of(n) not in (ClassMeaning.UNKNOWN, ClassMeaning.PLAIN)
    )
    return next(telling, label)


def _segment_numbers(dataset: Dataset, frames: int, names: Collection[int]) -> list[int]:
    """Return the segment number of each frame (PS3.3 C.8.20.3.1); a single segment has them all."""
    if len(names) < 2:
        return list(names or (0,)) * frames
    shared = _segment_of(next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None))
    own = [_segment_of(g) for g in dataset.get("PerFrameFunctionalGroupsSequence") or ()]
    numbers = [number or shared for number in (*own, *[0] * frames)][:frames]
    if not all(number in names for number in numbers):
        raise unreadable("a segmentation whose frames do not say of which segment they are")
    return numbers


def _segment_of(group: Dataset | None) -> int:
    identification = () if group is None else group.get("SegmentIdentificationSequence") or ()
    return next((int(i.get("ReferencedSegmentNumber") or 0) for i in identification), 0)


def _frames_on(dataset: Dataset, frames: int, image: TargetImage) -> tuple[str | None, list[int]]:
    """Return the image's UID and the frames, from 0, that refer to it or to no image."""
    shared = _sources(dataset, "SharedFunctionalGroupsSequence")
    own = _sources(dataset, "PerFrameFunctionalGroupsSequence")
    sources = [*own, *[frozenset[str]()] * (frames - len(own))]
    ours = shown_image(frozenset().union(*shared, *sources), image)
    return ours, [n for n in range(frames) if not sources[n] or ours in sources[n]]


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
    """Unpack bits, lowest first; a frame may start within a byte (PS3.5 8.1.1)."""
    packed = _bytes(data, first // 8, -(-(first + size) // 8))
    bits = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + size]
    return bits.astype(np.bool_)


def _bytes(data: bytes, start: int, stop: int) -> npt.NDArray[np.uint8]:
    if len(data) < stop:
        raise unreadable("a truncated segmentation")
    return np.frombuffer(data[start:stop], dtype=np.uint8)
