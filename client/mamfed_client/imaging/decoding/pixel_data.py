"""Decode the pixel data of a DICOM image into stored values."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.filereader import _read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from mamfed_client.imaging.decoding.codecs import (
    DecodedFrame,
    Stored,
    decode_jpeg,
    decode_jpeg2000,
    decode_jpeg_ls,
    decode_rle,
)
from mamfed_client.imaging.decoding.pixel_evidence import (
    check_byte_order,
    check_shape,
    check_sign,
    check_spare_bits,
)
from mamfed_client.imaging.decoding.pixel_layout import Layout, element, read_layout
from mamfed_client.imaging.rejections import FileRejected, Reason

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
DECODERS: dict[str, Callable[[bytes, Layout], DecodedFrame | None]] = {
    uid.RLELossless: decode_rle,
    uid.JPEGBaseline8Bit: decode_jpeg,
    uid.JPEGExtended12Bit: decode_jpeg,
    uid.JPEGLossless: decode_jpeg,
    uid.JPEGLosslessSV1: decode_jpeg,
    uid.JPEGLSLossless: decode_jpeg_ls,
    uid.JPEGLSNearLossless: decode_jpeg_ls,
    uid.JPEG2000Lossless: decode_jpeg2000,
    uid.JPEG2000: decode_jpeg2000,
    uid.HTJ2KLossless: decode_jpeg2000,
    uid.HTJ2KLosslessRPCL: decode_jpeg2000,
    uid.HTJ2K: decode_jpeg2000,
}
LOSSY = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLSNearLossless,
        uid.JPEG2000,
        uid.HTJ2K,
    }
)
MAX_INFLATED = 256 << 20
"""Maximum bytes of an inflated data set: three times the pixels of the largest image."""
META_OFFSET = 132
"""Length of the preamble and ``DICM`` in bytes (PS3.10 7.1)."""


def stored_values(dataset: Dataset, *, is_mammogram: bool = False) -> Stored:
    """Decode the only frame of a grey image.

    Args:
        dataset: The header and its pixel data.
        is_mammogram: Whether neighbouring pixels must be similar, unlike those of a mask. If so,
            the pixels are checked against sign, bits, byte order and size in the header.

    Returns:
        ``(H, W)`` uint8, int8, uint16 or int16: the stored bits only, sign-extended. It may be a
        read-only view of the pixel data.

    Raises:
        FileRejected: The header contradicts itself or the pixel data, the pixel data are truncated
            or corrupt, or no installed decoder supports them.
    """
    layout = read_layout(dataset)
    syntax = _transfer_syntax(dataset)
    words = _words(dataset, syntax, layout)
    if words.pixels.shape != (layout.rows, layout.columns):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "the decoded image has the wrong size")
    lossy, width = syntax in LOSSY, min(layout.stored, words.precision)
    lowest = layout.high + 1 - layout.stored if words.precision > layout.stored else 0
    if not is_mammogram:
        return _significant(words.pixels, lowest, width, signed=layout.signed, lossy=lossy)
    check_byte_order(words.pixels)
    if syntax in NATIVE or syntax == uid.RLELossless:  # other codestreams declare their own size
        check_shape(words.pixels)
    check_spare_bits(words.pixels, lowest, width, signed=layout.signed, lossy=lossy)
    values = _significant(words.pixels, lowest, width, signed=layout.signed, lossy=lossy)
    check_sign(values, width)
    return values


def check_deflated(data: bytes) -> None:
    """Reject a deflated file (PS3.5 A.5) that inflates beyond ``MAX_INFLATED`` or is truncated.

    pydicom offers no such limit: it inflates the entire file when opening it.
    """
    file = io.BytesIO(data)
    file.seek(META_OFFSET)
    try:
        syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
    except Exception:
        return  # not a DICOM file, or a corrupt one: the parser reports it
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        _check_inflated(file)


def _check_inflated(file: io.BytesIO) -> None:
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not inflater.eof and (piece := file.read(1 << 16)):
            size += len(inflater.decompress(piece))
            if size > MAX_INFLATED:
                raise FileRejected(
                    Reason.TOO_LARGE, f"inflates to more than {MAX_INFLATED >> 20} MiB"
                )
    except zlib.error:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "the deflated data are corrupt") from None
    if not inflater.eof:
        raise FileRejected(Reason.TRUNCATED, "the deflated data end early")


def _words(dataset: Dataset, syntax: UID, layout: Layout) -> DecodedFrame:
    if syntax in NATIVE:
        return _native(dataset, layout, big_endian=syntax == uid.ExplicitVRBigEndian)
    decode = DECODERS.get(syntax)
    words = decode(_codestream(dataset), layout) if decode else None
    return words or _decode_with_plugin(dataset, syntax, layout)


def _transfer_syntax(dataset: Dataset) -> UID:
    try:
        return UID(dataset.file_meta.TransferSyntaxUID)
    except (AttributeError, TypeError, ValueError):
        return uid.ImplicitVRLittleEndian  # the file has no meta information


def _pixel_data(dataset: Dataset) -> bytes:
    pixel_data = element(dataset, "PixelData")
    if pixel_data is None:
        raise FileRejected(Reason.NO_PIXELS, "no PixelData")
    if not isinstance(pixel_data.value, bytes):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "PixelData cannot be read")
    return pixel_data.value


def _native(dataset: Dataset, layout: Layout, *, big_endian: bool) -> DecodedFrame:
    """Return uncompressed pixels (PS3.5 8.2); padding may follow them, but no second image."""
    data, pixel_data = _pixel_data(dataset), element(dataset, "PixelData")
    width, count = layout.allocated // 8, layout.rows * layout.columns
    if pixel_data.is_undefined_length:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "compressed pixels in an uncompressed file")
    if len(data) < count * width:
        raise FileRejected(Reason.TRUNCATED, f"{len(data)} of {count * width} bytes of pixels")
    if len(data) >= 2 * (count * width + 1):
        detail = f"{len(data)} bytes of pixels; the header implies {count * width}"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail)
    # 8-bit pixels may be stored in 16-bit words (PS3.5 annex D).
    if big_endian and (width == 2 or pixel_data.VR == "OW"):
        data = np.frombuffer(data, ">u2", len(data) // 2).astype("<u2").tobytes()
    pixels = np.frombuffer(data, f"<u{width}", count)
    return DecodedFrame(pixels.reshape(layout.rows, layout.columns), layout.allocated)


def _codestream(dataset: Dataset) -> bytes:
    """Join the fragments of the only frame, ignoring the offset table (PS3.5 A.4)."""
    buffer = io.BytesIO(_pixel_data(dataset))
    try:
        parse_basic_offsets(buffer)
        return b"".join(generate_fragments(buffer))
    except MemoryError:
        raise
    except Exception:  # pydicom's exception classes vary, and their messages may quote the file
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "the pixel data's fragments are corrupt"
        ) from None


def _decode_with_plugin(dataset: Dataset, syntax: UID, layout: Layout) -> DecodedFrame:
    """Decode with any pydicom plugin that the user has installed, such as pylibjpeg-libjpeg."""
    name = syntax.name if syntax.name != syntax else "a syntax that DICOM does not register"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise FileRejected(Reason.UNSUPPORTED_SYNTAX, name) from None
    unsupported = FileRejected(Reason.UNSUPPORTED_SYNTAX, f"{name}, in an unsupported variant")
    if not decoder.is_available:
        raise unsupported
    try:
        pixels, _ = decoder.as_array(dataset, index=0, raw=True)
    except MemoryError:
        raise
    except Exception:  # corrupt data, or 12 bits given to pillow
        raise unsupported from None
    return DecodedFrame(pixels, layout.stored)


def _significant(decoded: Stored, lowest: int, width: int, *, signed: bool, lossy: bool) -> Stored:
    """Keep only the bits of the value, and extend the sign of two's complement (PS3.5 8.1.1).

    Overlays used to be stored above these bits; there is nothing below them. An encoder that was
    given only the value produced samples of at most ``stored`` bits. A lossy encoder that was given
    the entire word may overshoot the maximum value, which must not wrap around to black.
    """
    container = decoded.dtype.itemsize * 8
    pixels: Stored = decoded.view(f"{'i' if signed else 'u'}{container // 8}")
    if width == container:
        return pixels
    if not signed and not lowest:
        if pixels.max() >> width == 0:
            return pixels
        if lossy:
            return np.minimum(pixels, (1 << width) - 1)
    return (pixels << (container - width - lowest)) >> (container - width)
