"""Small files that ask for more memory or time than any mammogram needs."""

import struct
import zlib

import cv2
import numpy as np
import pydicom
from fuzz_seeds import file_bytes, native
from pydicom import uid

ROWS, COLUMNS = (0x28, 0x10), (0x28, 0x11)
GIB = 1 << 30


def bombs(seeds):
    """Name -> (suffix, bytes, reasons for which it may be refused)."""
    large = {"TOO_LARGE"}
    made = {
        "explicit 65535 x 65535": (sized(seeds["explicit"], 65535), large),
        "deflated 2 GiB": (deflated(seeds["deflated"]), large),
        "nested sequences": (spliced(seeds["explicit"], NESTED), None),
        "262,140 elements": (spliced(seeds["explicit"], MANY), None),
        "2e9 frames": (framed(), {"UNSUPPORTED_IMAGE", "TOMOSYNTHESIS"}),
        "rle 65535 x 65535": (sized(seeds["rle"], 65535), large),
        "rle 6000 x 6000": (sized(seeds["rle"], 6000), {"TRUNCATED"}),
    }
    for name, sof in (("jpeg-70", 0xC3), ("jpeg-8", 0xC0), ("jpeg-ls", 0xF7)):
        lying = jpeg_sized(seeds[name], sof, 65535)
        made[f"{name} 65535 x 65535"] = (sized(lying, 65535), large)
        made[f"{name} 65535 x 65535, header small"] = (lying, large)
        made[f"{name} 6000 x 6000"] = (sized(jpeg_sized(seeds[name], sof, 6000), 6000), None)
    for size in (20000, 60000, 2**31 - 1):
        lying = jpeg2000_sized(seeds["jpeg2000"], size, size)
        made[f"jpeg2000 {size}"] = (sized(lying, min(size, 65535)), large)
        made[f"jpeg2000 {size}, header small"] = (lying, large)
    made["jpeg2000 6000"] = (sized(jpeg2000_sized(seeds["jpeg2000"], 6000, 6000), 6000), None)
    made["jpeg2000 tiles of a pixel"] = (
        sized(jpeg2000_sized(seeds["jpeg2000"], 6000, 1), 6000),
        large,
    )
    return {name: (".dcm", *bomb) for name, bomb in made.items()} | {
        "png 60000 x 60000": (".png", png(60000, b"\0" * 1000), large),
        "png of zeros": (".png", png(12000), large),
        "tiff of zeros": (".tif", tiff(12000), large),
    }


def sized(data, size):
    """Set Rows and Columns of the DICOM header."""
    changed = bytearray(data)
    for tag in (ROWS, COLUMNS):
        at = changed.find(struct.pack("<HH", *tag), 132)
        changed[at + 8 : at + 10] = struct.pack("<H", size)
    return bytes(changed)


def jpeg_sized(data, sof, size):
    """Set height and width of a JPEG frame header."""
    changed = bytearray(data)
    at = changed.find(bytes((0xFF, sof)), changed.rfind(b"\xe0\x7f\x10\x00"))
    changed[at + 5 : at + 9] = struct.pack(">HH", size, size)
    return bytes(changed)


def jpeg2000_sized(data, size, tile):
    """Set the picture's and the tile's size in a SIZ segment."""
    changed = bytearray(data)
    at = changed.find(b"\xff\x4f\xff\x51")
    changed[at + 8 : at + 16] = struct.pack(">II", size, size)
    changed[at + 24 : at + 32] = struct.pack(">II", tile, tile)
    return bytes(changed)


def meta_end(data):
    """Where the file meta information ends (PS3.10 7.1)."""
    return 144 + struct.unpack_from("<I", data, 140)[0]


NESTED = 20000 * (
    struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
)
MANY = 4 * b"".join(struct.pack("<HH2sH2s", 0x11, i, b"LO", 2, b"ab") for i in range(65535))


def spliced(data, elements):
    """Put elements before a data set."""
    return data[: meta_end(data)] + elements + data[meta_end(data) :]


def deflated(data):
    """Inflate to one private element of 2 GiB: the same compressed block again and again."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = deflater.compress(struct.pack("<HH2sHI", 9, 0x10, b"UN", 0, 2 * GIB - 256))
    start += deflater.flush(zlib.Z_FULL_FLUSH)
    block = deflater.compress(bytes(1 << 24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return data[: meta_end(data)] + start + 128 * block + deflater.flush()


def framed():
    made = pydicom.dcmread(pydicom.filebase.DicomBytesIO(native(uid.ExplicitVRLittleEndian)))
    made.NumberOfFrames = 2_000_000_000
    return file_bytes(made, uid.ExplicitVRLittleEndian)


def png(size, content=None):
    """An 8-bit grey PNG of size x size zeros, or with other compressed content."""
    content = zlib.compress(bytes((size + 1) * size), 1) if content is None else content
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff(size):
    """A deflated grey TIFF of size x size zeros."""
    return cv2.imencode(".tif", np.zeros((size, size), np.uint8))[1].tobytes()
