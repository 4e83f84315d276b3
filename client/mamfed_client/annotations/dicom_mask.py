"""Read masks stored as DICOM images, as in CBIS-DDSM."""

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
    """Read a mask image or class map; regions are named by displayed pixel value.

    Raises:
        FileRejected: The file cannot be decoded or is an image: in CBIS-DDSM, crops and masks are
            sometimes swapped.
    """
    values = stored_values(dataset)
    darkest, brightest = values.min(), values.max()
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1" and darkest != brightest:
        values = darkest + brightest - values
    return Outlines(masks=regions(values, soft=False), by_value=True)


def looks_like_mask(path: Path) -> bool:
    """Return whether the file is a mask rather than an image crop: it has at most two grey levels.

    The file must be decoded, so this is only for files whose names do not tell.

    Raises:
        FileRejected: The file cannot be read or decoded.
    """
    data = read_bytes(path, FILE_LIMIT)
    with errors_as_unreadable():
        return _is_two_valued(stored_values(parse(data)))


def parse(data: bytes) -> Dataset:
    """Parse a DICOM file after checking how far it inflates.

    Raises:
        FileRejected: It inflates beyond the limit.
    """
    check_deflated(data)
    return pydicom.dcmread(BytesIO(data))


def _is_two_valued(values: npt.NDArray[Any]) -> bool:
    return bool(((values == values.min()) | (values == values.max())).all())
