"""DICOM files -> mammograms.

What pydicom says of a broken file may quote the file, so its words never get into a message.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, SegmentationStorage

from mamfed_client.imaging.decoding.pixel_data import check_deflated, stored_values
from mamfed_client.imaging.derived_header import Header, repeated
from mamfed_client.imaging.dicom_attributes import facts
from mamfed_client.imaging.dicom_header import numbers, text
from mamfed_client.imaging.grayscale import to_grey
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.screening import check_screening, is_tomosynthesis

PREAMBLE = bytes(128) + b"DICM"
"""PS3.10 7.1."""
META_GROUP, FIRST_GROUP = b"\x02\x00", b"\x08\x00"


def read_dicom(
    data: bytes,
    file_name: str,
    allow: frozenset[Reason] = frozenset(),
    *,
    to_show: bool = False,
) -> Mammogram:
    """Read a single-frame grey mammogram.

    Args:
        data: The file's bytes.
        file_name: Its name, which may tell side and view where the header does not.
        allow: Reasons that do not refuse a file here, of those that ``check_screening`` gives.
        to_show: Whether it is only to be looked at, so that what its pixels contradict does not
            refuse it.

    Raises:
        Refusal: The file is broken, of a kind that is not read, or no screening mammogram.
    """
    with _any_trouble_refused():
        dataset = _parse(data)
        _check_holds_image(dataset)
        known = facts(dataset, file_name)
        check_screening(dataset, known, allow)
        _check_picture(dataset)
        shown = to_grey(stored_values(dataset, is_mammogram=not to_show), dataset, to_show=to_show)
        return Mammogram(shown.grey, shown.valid, known, shown.doubts)


def read_source(data: bytes) -> Header:
    """Read what an object derived from an image needs of its header (``derived_header.py``).

    Args:
        data: The file's bytes.

    Raises:
        Refusal: The file is broken.
    """
    with _any_trouble_refused():
        return repeated(_parse(data))


@contextmanager
def _any_trouble_refused() -> Iterator[None]:
    """Turn whatever comes out of pydicom (nine classes were seen) into one refusal.

    Lack of memory is the caller's to judge. Warnings are dropped, for they quote the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FileRejected, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__} while reading DICOM"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail) from None


def _parse(data: bytes) -> Dataset:
    """Read all elements; also of a file without preamble, or without file meta group either.

    Such files come from old archives. They are tried only if they begin as a data set must, in
    little endian: with an element of the meta group or of group 0008.
    """
    if data[: len(PREAMBLE)][128:] == PREAMBLE[128:]:
        return _parse_with_meta(data)
    if data.startswith(META_GROUP):
        return _parse_with_meta(PREAMBLE + data)
    if not data.startswith(FIRST_GROUP):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "neither DICOM nor a picture by its name")
    dataset = dcmread(BytesIO(data), force=True)
    if not UID(text(dataset, "SOPClassUID")).is_valid:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "no preamble and no (0008,0016) SOP Class UID")
    return dataset


def _parse_with_meta(data: bytes) -> Dataset:
    check_deflated(data)
    dataset = dcmread(BytesIO(data))
    if not text(dataset.file_meta, "TransferSyntaxUID"):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "(0002,0010) Transfer Syntax UID is missing")
    return dataset


def _check_holds_image(dataset: Dataset) -> None:
    """Refuse reports, directories, presentation states and segmentations.

    Of a compressed file that ends within its pixels pydicom returns no element at all; the meta
    group still tells what it was.
    """
    meta = getattr(dataset, "file_meta", Dataset())
    sop_class = UID(text(dataset, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID"))
    if sop_class == SegmentationStorage:
        raise FileRejected(Reason.NO_PIXELS, "a segmentation")
    if "PixelData" in dataset:
        return
    if "Image Storage" in sop_class.name:
        raise FileRejected(Reason.TRUNCATED, "the file ends before (7FE0,0010) Pixel Data")
    raise FileRejected(Reason.NO_PIXELS, "(7FE0,0010) Pixel Data is missing")


def _check_picture(dataset: Dataset) -> None:
    """Refuse by the header, before any pixel is decoded."""
    sides = numbers(dataset, "Rows")[:1] + numbers(dataset, "Columns")[:1]
    if len(sides) != 2 or min(sides) < 1:
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "(0028,0010) Rows or (0028,0011) Columns is missing"
        )
    if sides[0] * sides[1] > MAX_PIXELS:
        size = f"{sides[1]:.0f} x {sides[0]:.0f} pixels, at most {MAX_PIXELS} are read"
        raise FileRejected(Reason.TOO_LARGE, size)
    frames = int(text(dataset, "NumberOfFrames") or 1)
    if frames != 1:
        tomosynthesis = is_tomosynthesis(dataset)
        reason = Reason.TOMOSYNTHESIS if tomosynthesis else Reason.UNSUPPORTED_IMAGE
        raise FileRejected(reason, f"{frames} frames, one is read")
    if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "(0028,0004) is neither MONOCHROME1 nor 2")
    if text(dataset, "SamplesPerPixel") not in ("", "1"):
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "(0028,0002) Samples per Pixel is not 1")
