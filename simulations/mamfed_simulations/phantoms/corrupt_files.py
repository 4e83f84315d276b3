"""Make unreadable files: truncated, corrupt, or not DICOM at all.

Each function takes a sound uncompressed mammogram, which it may modify, and returns a file.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from mamfed_client.imaging.rejections import Reason
from mamfed_simulations.phantoms.transfer_syntaxes import encapsulate_frame, encode

Maker = Callable[[Dataset], bytes]

_PRIVATE_SYNTAX = "1.2.826.0.1.3680043.8.498.99"
_HEVC_SYNTAX = "1.2.840.10008.1.2.4.107"


def saved(dataset: Dataset, syntax: str = "explicit") -> bytes:
    """Return an uncompressed data set as a file in a transfer syntax."""
    encode(dataset, syntax)
    return _written(dataset)


def _written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _recoded(dataset: Dataset, syntax: str, change: Callable[[bytes], bytes]) -> bytes:
    """Change the codestream and keep its container sound."""
    encode(dataset, syntax)
    encapsulate_frame(dataset, change(_codestream(dataset)))
    return _written(dataset)


def _codestream(dataset: Dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _cut(codestream: bytes) -> bytes:
    return codestream[: len(codestream) // 2]


def _cut_codestream(syntax: str) -> Maker:
    return lambda dataset: _recoded(dataset, syntax, _cut)


def _cut_pixels(dataset: Dataset) -> bytes:
    """Truncate the pixel data in an otherwise complete file."""
    dataset["PixelData"].value = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]
    return saved(dataset)


def _cut_before_pixels(dataset: Dataset) -> bytes:
    del dataset.PixelData
    return saved(dataset)


def _cut_file(syntax: str) -> Maker:
    """Truncate the file within the pixel data, its last element."""

    def make(dataset: Dataset) -> bytes:
        data = saved(dataset, syntax)
        return data[: len(data) - len(dataset.PixelData) // 2]

    return make


def _overwrite(marker: bytes, offset: int, garbage: bytes) -> Callable[[bytes], bytes]:
    """Overwrite the bytes that follow a marker of a codestream."""

    def change(codestream: bytes) -> bytes:
        start = codestream.index(marker) + offset
        return codestream[:start] + garbage + codestream[start + len(garbage) :]

    return change


def _corrupt_jpeg_2000(dataset: Dataset) -> bytes:
    """Corrupt the coding style default segment (ISO 15444-1 A.6.1)."""
    return _recoded(dataset, "jpeg-2000-lossless", _overwrite(b"\xff\x52", 4, b"\xee" * 10))


def _corrupt_jpeg_lossless(dataset: Dataset) -> bytes:
    """Give the Huffman table more codes than possible (ISO 10918-1 B.2.4.2)."""
    return _recoded(dataset, "jpeg-lossless-sv1", _overwrite(b"\xff\xc4", 5, b"\xff" * 16))


def _corrupt_rle(dataset: Dataset) -> bytes:
    """Claim more segments than the header has room for (PS3.5 G.5)."""
    return _recoded(dataset, "rle", lambda codestream: b"\x63" + codestream[1:])


def _corrupt_deflate(dataset: Dataset) -> bytes:
    """Start the data set with a block of the reserved type (RFC 1951 3.2.3)."""
    data = bytearray(saved(dataset, "deflated"))
    start = 144 + int.from_bytes(data[140:144], "little")  # after the file meta information
    data[start] |= 0b110
    return bytes(data)


def _huge_header(dataset: Dataset) -> bytes:
    dataset.Rows = dataset.Columns = 65535
    return saved(dataset)


def _huge_codestream(dataset: Dataset) -> bytes:
    """Claim four gigapixels in both the header and the frame header (ISO 10918-1 B.2.2)."""
    encode(dataset, "jpeg-lossless-sv1")
    dataset.Rows = dataset.Columns = 65535
    encapsulate_frame(dataset, _overwrite(b"\xff\xc3", 5, b"\xff" * 4)(_codestream(dataset)))
    return _written(dataset)


def _two_sizes(dataset: Dataset) -> bytes:
    encode(dataset, "jpeg-2000-lossless")
    dataset.Rows += 16
    return _written(dataset)


def _missing_rows(dataset: Dataset) -> bytes:
    del dataset.Rows
    return saved(dataset)


def _other_syntax(uid: str) -> Maker:
    """Claim another transfer syntax for an encapsulated codestream."""

    def make(dataset: Dataset) -> bytes:
        encode(dataset, "jpeg-lossless-sv1")
        buffer = BytesIO()
        dataset.file_meta.TransferSyntaxUID = UID(uid)
        dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
        return buffer.getvalue()

    return make


def _wrong_magic(dataset: Dataset) -> bytes:
    data = saved(dataset)
    return data[:128] + b"MCID" + data[132:]


def _noise(dataset: Dataset) -> bytes:
    """Return the pixel bytes without preamble and header."""
    return bytes(dataset.PixelData)


BROKEN: dict[str, tuple[Reason, Maker]] = {
    "cut-pixels": (Reason.TRUNCATED, _cut_pixels),
    "cut-before-pixels": (Reason.TRUNCATED, _cut_before_pixels),
    "cut-file": (Reason.TRUNCATED, _cut_file("explicit")),
    "cut-file-of-jpeg-lossless": (Reason.TRUNCATED, _cut_file("jpeg-lossless-sv1")),
    "cut-jpeg-2000": (Reason.TRUNCATED, _cut_codestream("jpeg-2000-lossless")),
    "cut-jpeg-lossless": (Reason.TRUNCATED, _cut_codestream("jpeg-lossless-sv1")),
    "cut-jpeg-ls": (Reason.TRUNCATED, _cut_codestream("jpeg-ls")),
    "cut-rle": (Reason.TRUNCATED, _cut_codestream("rle")),
    "corrupt-jpeg-2000": (Reason.UNREADABLE_IMAGE, _corrupt_jpeg_2000),
    "corrupt-jpeg-lossless": (Reason.UNREADABLE_IMAGE, _corrupt_jpeg_lossless),
    "corrupt-rle": (Reason.UNREADABLE_IMAGE, _corrupt_rle),
    "corrupt-deflate": (Reason.UNREADABLE_IMAGE, _corrupt_deflate),
    "huge-header": (Reason.TOO_LARGE, _huge_header),
    "huge-codestream": (Reason.TOO_LARGE, _huge_codestream),
    "two-sizes": (Reason.UNREADABLE_IMAGE, _two_sizes),
    "missing-rows": (Reason.UNREADABLE_IMAGE, _missing_rows),
    "private-syntax": (Reason.UNSUPPORTED_SYNTAX, _other_syntax(_PRIVATE_SYNTAX)),
    "video-syntax": (Reason.UNSUPPORTED_SYNTAX, _other_syntax(_HEVC_SYNTAX)),
    "wrong-magic": (Reason.UNREADABLE_IMAGE, _wrong_magic),
    "noise": (Reason.UNREADABLE_IMAGE, _noise),
    "empty": (Reason.UNREADABLE_IMAGE, lambda _: b""),
    "text": (Reason.UNREADABLE_IMAGE, lambda _: b"Exported at 10:15. Ask the archive.\n" * 9),
}
