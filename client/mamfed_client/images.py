"""PNG, TIFF, JPEG and PGM pictures -> mammograms."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.decoding.codestreams import SOI, jpeg_header
from mamfed_client.mammogram import MAX_PIXELS, Grey, Mammogram
from mamfed_client.rejections import Reason, Refusal
from mamfed_common.samples import FULL_SCALE

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".pgm"})
PNG = b"\x89PNG\r\n\x1a\n"
LITTLE_TIFF, BIG_TIFF = (b"II*\0", b"II+\0"), (b"MM\0*", b"MM\0+")
"""Byte orders of TIFF, each in the classic form and in that of files beyond 4 GiB."""
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}


class Size(NamedTuple):
    """Of a picture in pixels."""

    width: int
    height: int


def read_image(data: bytes) -> Mammogram:
    """Read an 8- or 16-bit grey picture, tissue bright.

    8-bit levels are spread over 16 bits. 12-bit levels in a 16-bit file stay below 1/16;
    preprocessing normalises them. Of a TIFF with several pages the first is read. What a picture
    file says of its orientation is not obeyed, as its mask was drawn on its own pixel grid.

    Args:
        data: The file's bytes; what they are follows from their content.

    Raises:
        Refusal: The file cannot be decoded, is cut short or too large, or is neither grey nor of
            8 or 16 bits.
    """
    stored = _decode(data)
    if stored.dtype not in (np.uint8, np.uint16):
        raise Refusal(Reason.UNSUPPORTED_IMAGE, f"{stored.dtype} pixels; 8- or 16-bit are read")
    grey = _grey(stored)
    spread = FULL_SCALE // np.iinfo(grey.dtype).max
    levels: Grey = np.multiply(grey, spread, dtype=np.uint16)
    return Mammogram(levels)


def _decode(data: bytes) -> npt.NDArray[Any]:
    """Decode, once the picture's own header asks for no more than may be.

    OpenCV 5 decodes none of the formats where the data end early: it says that it cannot.
    """
    size = _size(data)
    if size.width * size.height > MAX_PIXELS:
        detail = f"{size.width} x {size.height} pixels, at most {MAX_PIXELS} are read"
        raise Refusal(Reason.TOO_LARGE, detail)
    try:
        stored = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        stored = None
    if stored is None:
        raise Refusal(Reason.UNREADABLE_IMAGE, "a broken picture, or of a kind not decoded")
    if stored.shape[:2] != (size.height, size.width):
        raise Refusal(Reason.UNREADABLE_IMAGE, "the picture has not the size that its header says")
    image: npt.NDArray[Any] = stored
    return image


def _size(data: bytes) -> Size:
    """Read a picture's size from its header; its content says which format it is."""
    try:
        if data.startswith(PNG):
            return Size(*struct.unpack_from(">II", data, len(PNG) + 8))  # IHDR comes first
        if data.startswith(SOI):
            header = jpeg_header(data)
            return Size(header.columns, header.rows)
        if data.startswith(LITTLE_TIFF + BIG_TIFF):
            return _tiff_size(data, "<" if data.startswith(LITTLE_TIFF) else ">")
        if data.startswith((b"P2", b"P5")):
            return _pgm_size(data)
    except struct.error:
        raise Refusal(Reason.TRUNCATED, "the picture ends within its header") from None
    raise Refusal(Reason.UNREADABLE_IMAGE, "neither PNG, TIFF, JPEG nor PGM by its content")


def _tiff_size(data: bytes, order: str) -> Size:
    """Read width and height from the first directory (TIFF 6.0 section 2; BigTIFF)."""
    is_classic = data[2:4].strip(b"\0") == b"*"
    count_format, offset_format, entry_size = ("H", "I", 12) if is_classic else ("Q", "Q", 20)
    (start,) = struct.unpack_from(order + offset_format, data, 4 if is_classic else 8)
    (count,) = struct.unpack_from(order + count_format, data, start)
    first = start + struct.calcsize(order + count_format)
    found: dict[int, int] = {}
    for place in range(first, min(first + count * entry_size, len(data)), entry_size):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT) and kind in TIFF_INTEGERS:
            value_at = place + entry_size - (4 if is_classic else 8)
            (found[tag],) = struct.unpack_from(order + TIFF_INTEGERS[kind], data, value_at)
    if len(found) != 2:
        raise Refusal(Reason.UNREADABLE_IMAGE, "a TIFF without width or height")
    return Size(found[TIFF_WIDTH], found[TIFF_HEIGHT])


def _pgm_size(data: bytes) -> Size:
    """Read width and height, between which comments may stand."""
    head = re.sub(rb"#[^\n]*", b"", data[:4096])
    found = re.match(rb"P[25]\s+(\d{1,9})\s+(\d{1,9})\s", head)
    if not found:
        raise Refusal(Reason.UNREADABLE_IMAGE, "a PGM without width or height")
    return Size(int(found[1]), int(found[2]))


def _grey(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Take one channel of a picture whose colour channels are equal and whose alpha is opaque."""
    if stored.ndim == 2:
        return stored
    first, others = stored[..., :1], stored[..., 1:3]
    if (others != first).any():
        raise Refusal(Reason.UNSUPPORTED_IMAGE, "colour pixels; grey ones are read")
    if stored.shape[2] == 4 and (stored[..., 3] != np.iinfo(stored.dtype).max).any():
        raise Refusal(Reason.UNSUPPORTED_IMAGE, "transparent pixels; opaque ones are read")
    return stored[..., 0]
