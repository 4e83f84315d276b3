"""Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream before any decoder touches it.

A decoder allocates what the codestream's header requests, whatever the DICOM header says: 47 KiB of
lossless JPEG can request 14 GiB.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mamfed_client.imaging.rejections import FileRejected, Reason

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOC, SIZ = b"\xff\x4f", b"\xff\x51"
JP2_SIGNATURE = b"\0\0\0\x0cjP  "
BASELINE, EXTENDED, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xF7
FRAMES = frozenset({*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC})
"""SOF markers (T.81 table B.1, T.87 table C.1); C4, C8 and CC have other meanings."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
MAX_TILES = 4096
"""40 megapixels in tiles of 128 x 128 make 2,441; a hostile file may request one per pixel."""


class Header(NamedTuple):
    """The image parameters that a codestream declares.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        components: Number of channels; 1 for grey.
        precision: Bits per sample.
        process: Second byte of the SOF marker; 0 for JPEG 2000.
        scan: Byte offset of the first scan header; 0 for JPEG 2000.
        signed: Whether samples are signed (JPEG 2000 only).
    """

    rows: int
    columns: int
    components: int
    precision: int
    process: int = 0
    scan: int = 0
    signed: bool = False


def jpeg_header(data: bytes) -> Header:
    """Read the frame header of JPEG (T.81 B.2.2) or JPEG-LS (T.87 C.2.2).

    Raises:
        FileRejected: There is no frame header, more than one, or no scan after it.
    """
    try:
        return _jpeg_header(data)
    except (IndexError, struct.error):
        raise FileRejected(Reason.TRUNCATED, "the JPEG data end within their header") from None


def _jpeg_header(data: bytes) -> Header:
    if not data.startswith(SOI):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "the pixel data are not JPEG")
    header, position = None, len(SOI)
    while True:
        marker, position = _next_marker(data, position)
        if marker == START_OF_SCAN and header is not None:
            return header._replace(scan=position)
        if marker in (START_OF_SCAN, END_OF_IMAGE):
            raise FileRejected(Reason.UNREADABLE_IMAGE, "JPEG data without a picture")
        if marker in STANDALONE:
            continue
        if marker in FRAMES:
            if header is not None:
                raise FileRejected(Reason.UNREADABLE_IMAGE, "JPEG data with several frame headers")
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 2)
            header = Header(rows, columns, components, precision, marker)
        (length,) = struct.unpack_from(">H", data, position)
        position += max(length, 2)


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the second byte of the marker at a position, and the position of its segment."""
    if data[position] != 0xFF:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "JPEG data with a corrupt header")
    while data[position] == 0xFF:  # any number of fill bytes (T.81 B.1.1.2)
        position += 1
    return data[position], position + 1


def jpeg2000_codestream(data: bytes) -> bytes:
    """Extract the bare codestream from a JP2 file, which PS3.5 A.4.4 forbids but some write."""
    return data[max(data.find(SOC + SIZ), 0) :] if data.startswith(JP2_SIGNATURE) else data


def jpeg2000_header(data: bytes) -> Header:
    """Read the SIZ segment of a JPEG 2000 codestream (T.800 A.5.1).

    Raises:
        FileRejected: There is no SIZ segment, components are subsampled, or there are too many
            tiles.
    """
    if not data.startswith(SOC + SIZ):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "the pixel data are not a JPEG 2000 codestream")
    try:
        right, bottom, left, top, *tiles = struct.unpack_from(">8I", data, 8)
        components, precision, *steps = struct.unpack_from(">HBBB", data, 40)
    except struct.error:
        raise FileRejected(Reason.TRUNCATED, "the JPEG 2000 data end within their header") from None
    if steps != [1, 1] or 0 in tiles[:2]:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "JPEG 2000 data with an unsupported grid")
    if (count := _tile_count(right, bottom, tiles)) > MAX_TILES:
        raise FileRejected(Reason.TOO_LARGE, f"{count} tiles; the maximum is {MAX_TILES}")
    bits, signed = (precision & 0x7F) + 1, bool(precision & 0x80)
    return Header(bottom - top, right - left, components, bits, signed=signed)


def _tile_count(right: int, bottom: int, tiles: list[int]) -> int:
    """Return the number of tiles (T.800 equation B-5)."""
    width, height, left, top = tiles
    return -(-(right - left) // width) * -(-(bottom - top) // height)
