"""A row's files -> its mammogram and mask."""

from __future__ import annotations

from pathlib import Path

from mamfed_client.dicom import read_dicom
from mamfed_client.images import SUFFIXES, read_image, read_mask
from mamfed_client.mammogram import Mammogram, Mask
from mamfed_client.rejections import Reason, Refusal


def read_mammogram(path: Path) -> Mammogram:
    """Read an image file by what its name ends with; what is no picture is taken for DICOM.

    Raises:
        Refusal: The file cannot be used.
    """
    return read_image(path) if path.suffix.lower() in SUFFIXES else read_dicom(path)


def read_lesions(path: Path, mammogram: Mammogram) -> Mask:
    """Read the mask of a malignant mammogram, ``(H, W)`` as its pixels.

    Raises:
        Refusal: The mask cannot be read, has another size than the image, or marks nothing.
    """
    mask = read_mask(path)
    if mask.shape != mammogram.pixels.shape:
        (rows, columns), (height, width) = mask.shape, mammogram.pixels.shape
        detail = f"mask {columns} x {rows} on an image of {width} x {height}"
        raise Refusal(Reason.MASK_SIZE, detail)
    if not mask.any():
        raise Refusal(Reason.EMPTY_MASK, "the row is malignant but its mask marks nothing")
    return mask
