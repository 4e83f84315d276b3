"""Read and check the directories of a TIFF before any decoder touches it (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from mamfed_client.imaging.rejections import FileRejected, Reason

LITTLE_TIFF, BIG_TIFF = (b"II*\0", b"II+\0"), (b"MM\0*", b"MM\0+")
"""Signatures of little- and big-endian files, each as classic TIFF and as BigTIFF."""
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 262, 274, 277
SUBFILE, OLD_SUBFILE, PLANAR, SUB_DIRECTORIES, SAMPLE_FORMAT = 254, 255, 284, 330, 339
REDUCED, TRANSPARENCY = 0b001, 0b100
"""Bits of New Subfile Type: a reduced view, or a mask, of another page."""
OLD_REDUCED = 2
WHITE_IS_ZERO = 0
SUPPORTED_PHOTOMETRICS = {
    0: "white is zero",
    1: "black is zero",
    2: "RGB",
    3: "palette",
    6: "YCbCr",
}
UNSIGNED, SIGNED = 1, 2
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Field types of integers and offsets, and their ``struct`` formats."""
MAX_DIRECTORIES = 64

Tags = dict[int, tuple[int, ...]]


class TiffPage(NamedTuple):
    """The only page of a TIFF.

    Attributes:
        width: In pixels.
        height: In pixels.
        white_is_zero: Whether low values are bright.
        signed: Whether pixels are signed; OpenCV reads 8-bit signed pixels as unsigned.
        is_mask: Whether the page is declared as the mask of another page.
    """

    width: int
    height: int
    white_is_zero: bool
    signed: bool
    is_mask: bool


def is_tiff(data: bytes) -> bool:
    """Return whether data start with a TIFF signature."""
    return data.startswith(LITTLE_TIFF + BIG_TIFF)


def read_tiff_page(data: bytes) -> TiffPage:
    """Read the directories of a TIFF that holds a single grey image or mask.

    Reduced views of the image may follow it. Any orientation other than the default is rejected
    rather than corrected, because masks and outlines are drawn on the pixels as stored.

    Raises:
        FileRejected: There are several images, the first page is a reduced view, the image is
            rotated or of an unsupported kind, or the directories are truncated or corrupt.
    """
    try:
        directories = list(_directories(data))
    except struct.error:
        raise FileRejected(Reason.TRUNCATED, "the picture ends within its header") from None
    first = directories[0]
    if WIDTH not in first or HEIGHT not in first:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "a TIFF without width or height")
    if _is_view(first, REDUCED):
        raise _unsupported("a TIFF that begins with a thumbnail; save the image alone")
    pages = 1 + sum(not _is_view(tags, REDUCED | TRANSPARENCY) for tags in directories[1:])
    if pages > 1:
        raise _unsupported(f"several pages ({pages}); save each image as a file of its own")
    _check_kind(first)
    white_is_zero = _one(first, PHOTOMETRIC, 1) == WHITE_IS_ZERO
    signed = _one(first, SAMPLE_FORMAT, UNSIGNED) == SIGNED
    size = _one(first, WIDTH, 0), _one(first, HEIGHT, 0)
    return TiffPage(*size, white_is_zero, signed, _is_view(first, TRANSPARENCY))


def _check_kind(tags: Tags) -> None:
    if (orientation := _one(tags, ORIENTATION, 1)) != 1:
        raise _unsupported(f"rotated by TIFF orientation {orientation}; save it upright")
    photometric, samples, bits = (_one(tags, tag, 1) for tag in (PHOTOMETRIC, SAMPLES, BITS))
    if photometric not in SUPPORTED_PHOTOMETRICS or samples not in (1, 3, 4):
        raise _unsupported(
            f"photometric interpretation {photometric} in {samples} channels; save it as grey"
        )
    if samples > 1 and bits > 8 and _one(tags, PLANAR, 1) != 1:
        raise _unsupported("colour planes of more than 8 bits; save it as grey")


def _is_view(tags: Tags, bits: int) -> bool:
    return bool(_one(tags, SUBFILE, 0) & bits) or _one(tags, OLD_SUBFILE, 0) == OLD_REDUCED


def _directories(data: bytes) -> list[Tags]:
    """Follow the chain of directories, and the sub-directories that they name."""
    order = "<" if data.startswith(LITTLE_TIFF) else ">"
    is_classic = data[2:4].strip(b"\0") == b"*"
    (start,) = struct.unpack_from(
        order + ("I" if is_classic else "Q"), data, 4 if is_classic else 8
    )
    queue, visited, directories = [start], set[int](), list[Tags]()
    while queue:
        start = queue.pop(0)
        if start in visited or len(visited) >= MAX_DIRECTORIES:
            detail = f"TIFF directories form a loop, or are more than {MAX_DIRECTORIES}"
            raise FileRejected(Reason.UNREADABLE_IMAGE, detail)
        visited.add(start)
        tags, next_start = _directory(data, start, order, is_classic=is_classic)
        directories.append(tags)
        queue += [at for at in (next_start, *tags.get(SUB_DIRECTORIES, ())) if at]
    return directories


def _directory(data: bytes, start: int, order: str, *, is_classic: bool) -> tuple[Tags, int]:
    """Return the integer fields of a directory by tag, and the next directory's offset or 0."""
    count_format, offset_format, entry_size = ("H", "I", 12) if is_classic else ("Q", "Q", 20)
    (count,) = struct.unpack_from(order + count_format, data, start)
    first = start + struct.calcsize(order + count_format)
    end = first + count * entry_size
    tags: Tags = {}
    for entry in range(first, min(end, len(data)), entry_size):
        tag, kind, length = struct.unpack_from(order + "HH" + offset_format, data, entry)
        if kind in INTEGERS and 0 < length <= MAX_DIRECTORIES:
            values = order + INTEGERS[kind] * length
            inline = entry + entry_size - struct.calcsize(offset_format)
            at = inline
            if struct.calcsize(values) > struct.calcsize(order + offset_format):
                (at,) = struct.unpack_from(order + offset_format, data, inline)
            tags[tag] = struct.unpack_from(values, data, at)
    if end + struct.calcsize(order + offset_format) > len(data):  # some writers omit the offset
        return tags, 0
    (next_start,) = struct.unpack_from(order + offset_format, data, end)
    return tags, next_start


def _one(tags: Tags, tag: int, default: int) -> int:
    return next(iter(tags.get(tag, ())), default)


def _unsupported(detail: str) -> FileRejected:
    return FileRejected(Reason.UNSUPPORTED_IMAGE, detail)
