"""Read mammograms from DICOM files.

pydicom's error messages may quote the file, so they never appear in ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, SegmentationStorage

from mamfed_client.imaging.decoding.pixel_data import check_deflated, stored_values
from mamfed_client.imaging.derived_header import Header, read_repeated_header
from mamfed_client.imaging.dicom_attributes import read_facts
from mamfed_client.imaging.dicom_header import IDENTITY, numbers, text
from mamfed_client.imaging.display_steps import DisplaySteps, pixel_shape
from mamfed_client.imaging.grayscale import to_grey
from mamfed_client.imaging.mammogram import MAX_PIXELS, Mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.screening import check_screening, is_tomosynthesis

PREAMBLE = bytes(128) + b"DICM"
"""PS3.10 7.1."""
META_GROUP, IDENTIFYING_GROUP = b"\x02\x00", b"\x08\x00"
"""Group numbers 0002 and 0008, little endian."""


def read_dicom(
    data: bytes,
    file_name: str,
    allow: frozenset[Reason] = frozenset(),
    *,
    to_show: bool = False,
) -> Mammogram:
    """Read a single-frame greyscale mammogram.

    Args:
        data: The file's bytes.
        file_name: The file's name; used for side and view if the header lacks them.
        allow: Screening checks to ignore; see ``check_screening``.
        to_show: Read for display only: accept pixels that contradict the header.

    Raises:
        FileRejected: The file is corrupt, unsupported or not a screening mammogram.
    """
    with _errors_as_rejections():
        dataset = _parse(data)
        _check_holds_image(dataset)
        facts = read_facts(dataset, file_name)
        check_screening(dataset, facts, allow)
        _check_image_attributes(dataset)
        stored = stored_values(dataset, is_mammogram=not to_show)
        displayed = to_grey(stored, dataset, to_show=to_show)
        return Mammogram(displayed.grey, displayed.valid, facts, displayed.doubts)


def read_source(data: bytes) -> Header:
    """Read the header elements that an object derived from the image repeats.

    See ``derived_header.py``.

    Args:
        data: The file's bytes.

    Raises:
        FileRejected: The file is corrupt.
    """
    with _errors_as_rejections():
        return read_repeated_header(_parse(data))


def read_display(data: bytes) -> tuple[DisplaySteps, tuple[float, float]]:
    """Read how the image is displayed, as :func:`read_dicom` decides it.

    Args:
        data: The bytes of a file that :func:`read_dicom` accepts.

    Returns:
        The steps from stored values to grey levels, and a pixel's height and width.

    Raises:
        FileRejected: The file is corrupt or unsupported.
    """
    with _errors_as_rejections():
        dataset = _parse(data)
        _check_holds_image(dataset)
        _check_image_attributes(dataset)
        steps = to_grey(stored_values(dataset, is_mammogram=True), dataset).steps
        assert steps is not None
        return steps, pixel_shape(dataset)


def read_identity(data: bytes) -> dict[str, str]:
    """Read what tells one DICOM object from another: ``dicom_header.IDENTITY``, as texts.

    Args:
        data: The file's bytes.

    Raises:
        FileRejected: The file is corrupt.
    """
    with _errors_as_rejections():
        dataset = _parse(data)
        return {keyword: text(dataset, keyword)[:64] for keyword in IDENTITY}


@contextmanager
def _errors_as_rejections() -> Iterator[None]:
    """Turn any exception from pydicom (nine classes have been seen) into a rejection.

    MemoryError is left to the caller. Warnings are suppressed because they quote the file.
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
    """Parse a file, with or without a preamble and a file meta group.

    Files without them come from old archives. They are parsed only if they begin, in little
    endian, with an element of the meta group or of group 0008.
    """
    if data[: len(PREAMBLE)][128:] == PREAMBLE[128:]:
        return _parse_with_meta(data)
    if data.startswith(META_GROUP):
        return _parse_with_meta(PREAMBLE + data)
    if not data.startswith(IDENTIFYING_GROUP):
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
    """Reject reports, directories, presentation states and segmentations.

    For a compressed file that ends within its pixels, pydicom returns no elements at all; the
    meta group still holds the SOP class.
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


def _check_image_attributes(dataset: Dataset) -> None:
    """Reject unsupported images by their header, before any pixel is decoded."""
    shape = numbers(dataset, "Rows")[:1] + numbers(dataset, "Columns")[:1]
    if len(shape) != 2 or min(shape) < 1:
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "(0028,0010) Rows or (0028,0011) Columns is missing"
        )
    if shape[0] * shape[1] > MAX_PIXELS:
        size = f"{shape[1]:.0f} x {shape[0]:.0f} pixels, at most {MAX_PIXELS} are read"
        raise FileRejected(Reason.TOO_LARGE, size)
    frames = int(text(dataset, "NumberOfFrames") or 1)
    if frames != 1:
        is_stack = is_tomosynthesis(dataset)
        reason = Reason.TOMOSYNTHESIS if is_stack else Reason.UNSUPPORTED_IMAGE
        raise FileRejected(reason, f"{frames} frames, one is read")
    if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "(0028,0004) is neither MONOCHROME1 nor 2")
    if text(dataset, "SamplesPerPixel") not in ("", "1"):
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "(0028,0002) Samples per Pixel is not 1")
