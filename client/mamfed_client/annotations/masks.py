"""PNG, TIFF, JPEG and BMP files -> masks."""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np

from mamfed_client.annotations.levels import regions
from mamfed_client.annotations.outlines import Outlines, unreadable
from mamfed_client.mammogram import MAX_PIXELS

WHITE_IS_ZERO = 0
"""OpenCV inverts such pictures of 8 bits, not of 16; some programs mark a finding in black."""


def read(data: bytes, image_name: str = "") -> Outlines:
    """Read a mask, or a map of classes, by the value of its pixels. Transparency does not count.

    Raises:
        Refusal: The picture is broken or cut short, an image, has several pages or too many
            pixels.
    """
    kind, size = _header(data)
    if size[0] * size[1] > MAX_PIXELS:
        raise unreadable(f"a mask of {size[1]} x {size[0]} pixels")
    stored = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise unreadable(f"a {kind} that cannot be decoded")
    colours = stored[..., :3] if stored.ndim == 3 else stored
    return Outlines(masks=regions(colours, lossy=kind == "JPEG"), by_value=True)


def is_picture(data: bytes) -> bool:
    """Tell a picture by its first bytes."""
    return data.startswith(tuple(_HEADERS))


def _header(data: bytes) -> tuple[str, tuple[int, int]]:
    """Take the format's name, and rows and columns as its header says."""
    for magic, (kind, read_size) in _HEADERS.items():
        if data.startswith(magic):
            try:
                return kind, read_size(data)
            except (struct.error, KeyError):
                raise unreadable(f"a {kind} whose header is broken") from None
    raise unreadable("not a PNG, TIFF, JPEG or BMP")


def _png_size(data: bytes) -> tuple[int, int]:
    if b"IEND" not in data[-32:]:  # OpenCV 4 returns what it has got
        raise unreadable("a PNG that is cut short")
    columns, rows = struct.unpack_from(">II", data, 16)
    return rows, columns


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Go from marker to marker until a start of frame (ITU-T T.81, B.2.2)."""
    if b"\xff\xd9" not in data[-32:]:
        raise unreadable("a JPEG that is cut short")
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, at)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            rows, columns = struct.unpack_from(">HH", data, at + 5)
            return rows, columns
        at += 1 if marker == 0xFFFF else 2 + length


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Read the first directory (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    (more,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
    if more:
        raise unreadable("a TIFF of several pages; one is read")
    if tags.get(262) == WHITE_IS_ZERO:
        raise unreadable("a TIFF whose zero is white; save it with zero as black")
    return tags[257], tags[256]


def _bmp_size(data: bytes) -> tuple[int, int]:
    columns, rows = struct.unpack_from("<ii", data, 18)
    return abs(rows), columns


_HEADERS: dict[bytes, tuple[str, Callable[[bytes], tuple[int, int]]]] = {
    b"\x89PNG\r\n\x1a\n": ("PNG", _png_size),
    b"\xff\xd8\xff": ("JPEG", _jpeg_size),
    b"II*\0": ("TIFF", _tiff_size),
    b"MM\0*": ("TIFF", _tiff_size),
    b"BM": ("BMP", _bmp_size),
}
