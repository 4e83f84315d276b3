"""Read a mammogram from an image file of any supported format.

This code runs in a child process with limited memory, so it need not check memory use itself.
"""

from __future__ import annotations

from pathlib import Path

from mamfed_client.imaging.dicom import read_dicom
from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.raster import SUFFIXES, read_image
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.runtime.bounded import IMAGE_BYTES, read_bytes


def read_mammogram(
    path: Path,
    allow: frozenset[Reason] = frozenset(),
    data: bytes | None = None,
    *,
    to_show: bool = False,
) -> Mammogram:
    """Read an image file; a file without a picture suffix is read as DICOM.

    Args:
        path: The file.
        allow: Screening checks to ignore for DICOM files; see ``check_screening``. Pictures have no
            screening checks.
        data: The file's bytes, if they have been read already.
        to_show: Read for display only: accept pixels that contradict the header.

    Raises:
        FileRejected: The file cannot be used.
    """
    data = _bytes(path) if data is None else data
    if path.suffix.lower() in SUFFIXES:
        return read_image(data, to_show=to_show)
    return read_dicom(data, path.name, allow, to_show=to_show)


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, IMAGE_BYTES)
    except OSError as error:
        detail = f"{type(error).__name__} while reading the file"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail) from None
