"""Masks stored as DICOM images, as CBIS-DDSM's -> masks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from mamfed_client.annotations.levels import regions
from mamfed_client.annotations.outlines import (
    Outlines,
    errors_as_unreadable,
    read_bytes,
)
from mamfed_client.annotations.references import TargetImage
from mamfed_client.imaging.decoding.pixel_data import check_deflated, stored_values

FILE_LIMIT = 512 << 20


def read(dataset: Dataset, _: TargetImage | None = None) -> Outlines:
    """Read a mask image, or a map of classes, by the value that its pixels are shown at.

    Raises:
        FileRejected: It cannot be decoded or is an image: CBIS-DDSM's crops and masks swap places.
    """
    values = stored_values(dataset)
    darkest, brightest = values.min(), values.max()
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1" and darkest != brightest:
        values = darkest + brightest - values
    return Outlines(masks=regions(values, soft=False), by_value=True)


def looks_like_mask(path: Path) -> bool:
    """Tell a mask from the crop of an image: it has at most two grey levels.

    The file is decoded: this is for the few that their names do not tell apart.

    Raises:
        FileRejected: It cannot be read or decoded.
    """
    data = read_bytes(path, FILE_LIMIT)
    with errors_as_unreadable():
        return _is_two_valued(stored_values(parse(data)))


def parse(data: bytes) -> Dataset:
    """Parse a DICOM file, once it is known not to inflate without end.

    Raises:
        FileRejected: It inflates too far.
    """
    check_deflated(data)
    return pydicom.dcmread(BytesIO(data))


def _is_two_valued(values: npt.NDArray[Any]) -> bool:
    return bool(((values == values.min()) | (values == values.max())).all())
