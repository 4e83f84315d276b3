"""An image file, of whichever format -> its mammogram.

It runs in a child process of limited memory, so it need not guard memory, only be right.
"""

from __future__ import annotations

from pathlib import Path

from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.raster import SUFFIXES, read_image
from mamfed_client.imaging.rejections import FileRejected, Reason


def read_mammogram(
    path: Path,
    allow: frozenset[Reason] = frozenset(),
    data: bytes | None = None,
    *,
    to_show: bool = False,
) -> Mammogram:
    """Read an image file by what its name ends with; what is no picture is taken for DICOM.

    Args:
        path: The file.
        allow: Reasons that do not refuse a DICOM file here, of those that ``check_screening``
            gives. A picture says nothing that could be refused so.
        data: The file's bytes where they were read already.
        to_show: Whether it is only to be looked at, so that what its pixels contradict does not
            refuse it.

    Raises:
        Refusal: The file cannot be used.
    """
    data = _bytes(path) if data is None else data
    if path.suffix.lower() in SUFFIXES:
        return read_image(data, to_show=to_show)
    return read_dicom(data, path.name, allow, to_show=to_show)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        detail = f"{type(error).__name__} while reading the file"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail) from None
