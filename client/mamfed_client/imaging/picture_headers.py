"""Read the header fields of PNG, TIFF, JPEG, PGM and BMP that affect how pixels are interpreted.

The same rule holds for all formats, and for images as for masks: a picture that is rotated or holds
several images is rejected. Polarity, sign and tone curve are only reported, since they do not
matter for every mask. OpenCV, which decodes, honours them in some formats and bit depths only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mamfed_client.imaging.decoding.codestreams import EOI, SOI, jpeg_header
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tiff_directory import is_tiff, read_tiff_page
from mamfed_common.transforms.sample import FULL_SCALE

PNG, BMP = b"\x89PNG\r\n\x1a\n", b"BM"
EXIF = b"Exif\0\0"
EXIF_ORIENTATION = 274
GAMMAS = (45455, 100000)
"""Accepted values of gAMA in units of 1/100000: the usual 1/2.2, and 1, a common default."""
GAMMA_TOLERANCE = 0.02
PGM_GAP = rb"(?:\s|#[^\n]*\n)"
PGM_HEADER = re.compile(rb"(P[25])" + 3 * (PGM_GAP + rb"+(\d{1,9})") + PGM_GAP, re.ASCII)
"""Magic number, width, height and largest level."""


class PictureHeader(NamedTuple):
    """A picture as its header describes it.

    Attributes:
        format: ``PNG``, ``TIFF``, ``JPEG``, ``PGM`` or ``BMP``.
        width: In pixels.
        height: In pixels.
        white_is_zero: Whether low values are bright (TIFF only).
        signed: Whether pixels are signed (TIFF only).
        is_mask: Whether the picture is declared as the mask of another one (TIFF only).
        top: Maximum level of a binary PGM; 0 for other formats. OpenCV scales text PGM itself.
        gamma: Unusual tone curve of a PNG; else 0.
    """

    format: str
    width: int
    height: int
    white_is_zero: bool = False
    signed: bool = False
    is_mask: bool = False
    top: int = 0
    gamma: float = 0.0


def read_picture_header(data: bytes) -> PictureHeader:
    """Read a picture's header, detecting the format from the content.

    Raises:
        FileRejected: The format is unknown, the header is truncated, or the variant is unsupported.
    """
    try:
        if data.startswith(PNG):
            return _png(data)
        if data.startswith(SOI):
            return _jpeg(data)
        if is_tiff(data):
            return PictureHeader("TIFF", *read_tiff_page(data))
        if data.startswith((b"P2", b"P5")):
            return _pgm(data)
        if data.startswith(BMP):
            columns, rows = struct.unpack_from("<ii", data, 18)  # rows is negative if top-down
            return PictureHeader("BMP", columns, abs(rows))
    except struct.error:
        raise FileRejected(Reason.TRUNCATED, "the picture ends within its header") from None
    raise FileRejected(Reason.UNREADABLE_IMAGE, "neither PNG, TIFF, JPEG nor PGM by its content")


def is_picture(data: bytes) -> bool:
    """Return whether data start like a picture format used for masks; PGM is not one of them."""
    return data.startswith((PNG, SOI + b"\xff", BMP)) or is_tiff(data)


def _png(data: bytes) -> PictureHeader:
    width, height = struct.unpack_from(">II", data, len(PNG) + 8)  # IHDR comes first
    tone_curve = 0.0
    for kind, content in _png_chunks(data):
        if kind == b"acTL" and content[:4] > b"\0\0\0\1":
            raise _unsupported("several frames; save each image as a file of its own")
        if kind == b"eXIf":
            _check_upright(content)
        if kind == b"gAMA" and len(content) == 4:
            (gamma,) = struct.unpack(">I", content)
            if all(abs(gamma / usual - 1) > GAMMA_TOLERANCE for usual in GAMMAS):
                tone_curve = gamma / 100000
    return PictureHeader("PNG", width, height, gamma=tone_curve)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all chunks except the pixels; eXIf may come after these (PNG 3, section 5.6)."""
    at = len(PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind != b"IDAT":
            yield kind, data[at + 8 : at + 8 + min(length, 1 << 16)]
        at += 12 + length


def _jpeg(data: bytes) -> PictureHeader:
    header = jpeg_header(data)
    if header.precision != 8:
        raise _unsupported(f"a JPEG of {header.precision} bits; 8 are read")
    if header.components not in (1, 3):
        raise _unsupported(f"{header.components} colours; grey is read")
    for content in _jpeg_applications(data, header.scan):
        if content.startswith(EXIF):
            _check_upright(content[len(EXIF) :])
    end = data.find(EOI, header.scan)
    if end >= 0 and data.find(SOI + b"\xff", end) >= 0:
        raise _unsupported("several images; save each as a file of its own")
    return PictureHeader("JPEG", header.columns, header.rows)


def _jpeg_applications(data: bytes, scan: int) -> Iterator[bytes]:
    """Yield the APP1 segments, which hold Exif (T.81 B.2.4.6).

    ``jpeg_header`` has already validated the markers up to ``scan``.
    """
    at = len(SOI)
    while at + 4 <= min(scan, len(data)):
        if data[at] != 0xFF or data[at + 1] == 0xFF or 0xD0 <= data[at + 1] <= 0xD8:
            at += 1 if data[at + 1] == 0xFF or data[at] != 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xE1:
            yield data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


def _check_upright(exif: bytes) -> None:
    """Reject pictures that Exif rotates or mirrors: masks are drawn on the pixels as stored."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == EXIF_ORIENTATION and 2 <= value <= 8:
                raise _unsupported(f"rotated by Exif orientation {value}; save it upright")
    except struct.error:
        return  # corrupt metadata are ignored


def _pgm(data: bytes) -> PictureHeader:
    """Read the header, which may contain comments, and check that a single image follows."""
    header = PGM_HEADER.match(data[:4096])
    if not header:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "a PGM without width, height or maximum level")
    width, height, top = (int(header[group]) for group in (2, 3, 4))
    if not 1 <= top <= FULL_SCALE:
        raise FileRejected(Reason.UNREADABLE_IMAGE, f"a PGM with {top} as the maximum level")
    size = width * height * (1 if top < 256 else 2)
    is_text = header[1] == b"P2"
    has_more_data = (
        b"P" in data[header.end() :] if is_text else data[header.end() + size :].strip(b"\0\r\n\t ")
    )
    if has_more_data:
        raise _unsupported("data after the image; save each image as a file of its own")
    return PictureHeader("PGM", width, height, top=0 if is_text else top)


def _unsupported(detail: str) -> FileRejected:
    return FileRejected(Reason.UNSUPPORTED_IMAGE, detail)
