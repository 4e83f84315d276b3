"""PNG, TIFF, JPEG and PGM: tags, depth and polarity against the pixels."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from tests.unit.client.contradictions.drawn import breast, likeness
from tests.unit.client.contradictions.matrix import RIGHT, Case

from mamfed_client.imaging.raster import read_image
from mamfed_client.imaging.rejections import Reason


def _sixteen():
    return breast() << 4


def _eight():
    return (breast() >> 4).astype(np.uint8)


def _packed():
    """Two pixels of 12 bits in three bytes."""
    one, other = breast()[:, ::2].astype(int), breast()[:, 1::2].astype(int)
    three = np.stack([one >> 4, (one & 15) << 4 | other >> 8, other & 255], axis=2)
    return three.astype(np.uint8).reshape(len(one), -1)


def _encoded(suffix, picture):
    done, data = cv2.imencode(suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, 97])
    assert done
    return data.tobytes()


def tiff(*pages, order="<"):
    """A TIFF of uncompressed pages: each ``(pixels, bits, {tag: value})``."""
    mark = {"<": b"II", ">": b"MM"}[order]
    data, chain = bytearray(mark + struct.pack(order + "HI", 42, 0)), 4
    for pixels, bits, extra in pages:
        at = len(data)
        raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data += raw + b"\0" * (len(raw) % 2)
        samples = pixels.shape[2] if pixels.ndim == 3 else 1
        tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: bits, 259: 1, 262: 1, 273: at}
        tags |= {277: samples, 278: pixels.shape[0], 279: len(raw)} | extra
        struct.pack_into(order + "I", data, chain, len(data))
        data += struct.pack(order + "H", len(tags))
        for tag, value in sorted(tags.items()):
            data += struct.pack(order + "HHII", tag, 4, 1, value)
        chain = len(data)
        data += bytes(4)
    return bytes(data)


def _chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(pixels, *chunks, colour=0):
    """A PNG with further chunks before its pixels."""
    bits = 8 * pixels.itemsize
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(f">u{pixels.itemsize}").tobytes() for row in pixels)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def pgm(pixels, top, order=">"):
    head = b"P5\n%d %d\n%d\n" % (pixels.shape[1], pixels.shape[0], top)
    return head + pixels.astype(f"{order}u{1 if top < 256 else 2}").tobytes()


def _exif(orientation):
    entry = struct.pack(">HHHIHH", 1, 274, 3, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">I", 8) + entry + bytes(4)


def _jpeg_turned(orientation):
    data, content = _encoded(".jpg", _eight()), b"Exif\0\0" + _exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def _palette(turned):
    return b"".join(bytes([255 - level if turned else level] * 3) for level in range(256))


def _case(reader, what, outcome, make):
    return Case(reader, what, outcome, lambda: likeness(read_image(make())))


FORMATS = {"PNG": ".png", "TIFF": ".tif", "JPEG": ".jpg", "PGM": ".pgm"}
DEEP = {name: suffix for name, suffix in FORMATS.items() if name != "JPEG"}
UNSUPPORTED = Reason.UNSUPPORTED_IMAGE


def _in_all(formats, what, outcome, pixels):
    return [
        _case(name, what, outcome, lambda suffix=suffix: _encoded(suffix, pixels()))
        for name, suffix in formats.items()
    ]


TURNED = "to be turned or mirrored by its orientation"
SEVERAL = "several images in one file"
ZERO = "white is zero, and says so"
CASES = [
    *_in_all(FORMATS, "8 bits, sound, for comparison", RIGHT, _eight),
    *_in_all(DEEP, "16 bits, sound, for comparison", RIGHT, _sixteen),
    *_in_all(DEEP, "12 bits in 16", RIGHT, breast),
    *_in_all(
        FORMATS, "low is bright, and nothing says so", Reason.INVERTED, lambda: 255 - _eight()
    ),
    *_in_all(
        DEEP,
        "low is bright, 16 bits, and nothing says so",
        Reason.INVERTED,
        lambda: 65535 - _sixteen(),
    ),
    *_in_all(
        DEEP,
        "signed pixels stored as unsigned",
        Reason.CONTRADICTION,
        lambda: (breast().astype(int) - 2048).astype(np.uint16),
    ),
    *_in_all(
        DEEP,
        "values whose upper bits were cut",
        Reason.CONTRADICTION,
        lambda: breast().astype(np.uint8),
    ),
    *_in_all(
        DEEP, "the two bytes of pixels swapped", Reason.CONTRADICTION, lambda: _sixteen().byteswap()
    ),
    _case("TIFF", ZERO, RIGHT, lambda: tiff((255 - _eight(), 8, {262: 0}))),
    _case("TIFF", f"{ZERO}, 16 bits", RIGHT, lambda: tiff((65535 - _sixteen(), 16, {262: 0}))),
    _case(
        "TIFF",
        f"{ZERO}, 16 bits, big endian",
        RIGHT,
        lambda: tiff((65535 - _sixteen(), 16, {262: 0}), order=">"),
    ),
    _case(
        "TIFF",
        f"{ZERO}, 12 packed bits",
        RIGHT,
        lambda: tiff((255 - _packed(), 12, {262: 0, 256: 170})),
    ),
    _case("TIFF", "12 packed bits", RIGHT, lambda: tiff((_packed(), 12, {256: 170}))),
    _case(
        "TIFF",
        "white is zero, and it is not",
        Reason.INVERTED,
        lambda: tiff((_sixteen(), 16, {262: 0})),
    ),
    _case(
        "PNG",
        "a palette that turns bright and dark round, of such pixels",
        RIGHT,
        lambda: png(255 - _eight(), (b"PLTE", _palette(True)), colour=3),
    ),
    _case(
        "PNG",
        "a palette that turns bright and dark round, of others",
        Reason.INVERTED,
        lambda: png(_eight(), (b"PLTE", _palette(True)), colour=3),
    ),
    _case("TIFF", TURNED, UNSUPPORTED, lambda: tiff((_sixteen(), 16, {274: 6}))),
    _case("TIFF", TURNED, UNSUPPORTED, lambda: tiff((_eight(), 8, {274: 2}))),
    _case("JPEG", TURNED, UNSUPPORTED, lambda: _jpeg_turned(6)),
    _case("PNG", TURNED, UNSUPPORTED, lambda: png(_eight(), (b"eXIf", _exif(8)))),
    _case("JPEG", "orientation 1", RIGHT, lambda: _jpeg_turned(1)),
    _case("TIFF", SEVERAL, UNSUPPORTED, lambda: tiff((_sixteen(), 16, {}), (_sixteen(), 16, {}))),
    _case("JPEG", SEVERAL, UNSUPPORTED, lambda: 2 * _encoded(".jpg", _eight())),
    _case("PGM", SEVERAL, UNSUPPORTED, lambda: 2 * pgm(_eight(), 255)),
    _case("PNG", SEVERAL, UNSUPPORTED, lambda: png(_eight(), (b"acTL", struct.pack(">II", 2, 0)))),
    _case(
        "TIFF",
        "a smaller view of the image after it",
        RIGHT,
        lambda: tiff((_sixteen(), 16, {}), (_sixteen()[::4, ::4], 16, {254: 1})),
    ),
    _case(
        "TIFF",
        "a smaller view of the image before it",
        UNSUPPORTED,
        lambda: tiff((_sixteen()[::4, ::4], 16, {254: 1}), (_sixteen(), 16, {})),
    ),
    _case(
        "TIFF",
        "grey and transparency, 16 bits",
        UNSUPPORTED,
        lambda: tiff((np.dstack([_sixteen(), _sixteen()]), 16, {338: 2})),
    ),
    _case(
        "TIFF", "inks (CMYK)", UNSUPPORTED, lambda: tiff((np.dstack([_eight()] * 4), 8, {262: 5}))
    ),
    _case("TIFF", "signed, and says so", UNSUPPORTED, lambda: tiff((_sixteen(), 16, {339: 2}))),
    _case(
        "PNG",
        "a tone curve of its own",
        UNSUPPORTED,
        lambda: png(_eight(), (b"gAMA", struct.pack(">I", 22000))),
    ),
    _case(
        "PNG",
        "the usual tone curve",
        RIGHT,
        lambda: png(_eight(), (b"gAMA", struct.pack(">I", 45455))),
    ),
    _case(
        "PNG",
        "the air is said to be transparent",
        RIGHT,
        lambda: png(_eight(), (b"tRNS", struct.pack(">H", int(_eight()[0, -1])))),
    ),
    _case("PGM", "a largest level of 4095", RIGHT, lambda: pgm(breast(), 4095)),
    _case("PGM", "levels above the largest", Reason.CONTRADICTION, lambda: pgm(_sixteen(), 4095)),
    _case(
        "PGM",
        "16 bits in the order of a PC",
        Reason.CONTRADICTION,
        lambda: pgm(breast(), 4095, order="<"),
    ),
]
