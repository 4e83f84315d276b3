"""Encode DICOM pixel data in each transfer syntax (PS3.5 clause 10 and annex A).

The encoders are those of imagecodecs (libjpeg-turbo, CharLS, OpenJPEG) with one thread, so that the
same image gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Stored = npt.NDArray[np.unsignedinteger]

SYNTAXES: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-baseline": JPEGBaseline8Bit,
    "jpeg-lossless": JPEGLossless,
    "jpeg-lossless-sv1": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-ls-near": JPEGLSNearLossless,
    "jpeg-2000-lossless": JPEG2000Lossless,
    "jpeg-2000": JPEG2000,
}
LOSSY: dict[str, str] = {
    "jpeg-baseline": "ISO_10918_1",
    "jpeg-ls-near": "ISO_14495_1",
    "jpeg-2000": "ISO_15444_1",
}
"""Lossy Image Compression Method (0028,2114) of the lossy syntaxes."""

JPEG_QUALITY = 95
NEAR = 2
"""Maximum change of a stored value by near-lossless JPEG-LS."""
JPEG_2000_DECIBELS = 60
"""Peak signal to noise ratio of lossy JPEG 2000."""
JPEG_LOSSLESS_PREDICTOR = 4
"""Selection value if any is allowed; transfer syntax .70 requires 1 (PS3.5 A.4.1)."""


def encode(dataset: Dataset, syntax: str) -> None:
    """Encode an uncompressed data set in a transfer syntax, ready to be saved.

    Args:
        dataset: One frame of unsigned grey values in little endian, with file meta information;
            modified in place.
        syntax: A name in ``SYNTAXES``.

    Raises:
        ValueError: ``jpeg-baseline`` with more than 8 bits allocated (PS3.5 A.4.1).
    """
    if syntax in _ENCODERS:
        native = stored_pixels(dataset)
        codestream = _ENCODERS[syntax](native, int(dataset.BitsStored))
        encapsulate_frame(dataset, codestream)
        if syntax in LOSSY:
            _admit_loss(dataset, LOSSY[syntax], native.nbytes / len(codestream))
    elif syntax == "big-endian":
        dataset.walk(_swap_words)
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[syntax]


def stored_pixels(dataset: Dataset) -> Stored:
    """Return the uncompressed pixels, ``(H, W)`` uint8 or uint16."""
    dtype = np.dtype(np.uint8 if dataset.BitsAllocated == 8 else "<u2")
    count = dataset.Rows * dataset.Columns
    pixels = np.frombuffer(dataset.PixelData, dtype, count)
    return cast(Stored, pixels.reshape(dataset.Rows, dataset.Columns))


def encapsulate_frame(dataset: Dataset, codestream: bytes) -> None:
    """Set a codestream as the only frame, in one fragment of undefined length (PS3.5 A.4)."""
    dataset.add_new("PixelData", "OB", encapsulate([codestream]))
    dataset["PixelData"].is_undefined_length = True


def _admit_loss(dataset: Dataset, method: str, ratio: float) -> None:
    """Record that the pixels were compressed with loss, and how (PS3.3 C.7.6.1.1.5)."""
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = f"{ratio:.3g}"
    dataset.LossyImageCompressionMethod = method


def _swap_words(_: Dataset, element: DataElement) -> None:
    """Swap the words of OW values, which pydicom does not when it writes big endian."""
    if element.VR == "OW":
        element.value = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()


def _rle(pixels: Stored, bits: int) -> bytes:
    """Return one PackBits segment per byte plane, most significant first (PS3.5 annex G).

    pydicom's own encoder takes 40 times as long.
    """
    size = pixels.dtype.itemsize
    planes = pixels.astype(f">u{size}").view(np.uint8).reshape(*pixels.shape, size)
    segments = [_packbits(np.ascontiguousarray(planes[..., plane])) for plane in range(size)]
    offsets = np.zeros(15, "<u4")
    offsets[:size] = np.cumsum([64, *map(len, segments)])[:size]
    header = size.to_bytes(4, "little") + offsets.tobytes()
    return header + b"".join(segments)


def _packbits(plane: npt.NDArray[np.uint8]) -> bytes:
    """Pack row by row: no run crosses the end of a row (PS3.5 G.3.1); pad to an even length."""
    packed = bytes(imagecodecs.packbits_encode(plane, axis=-1))
    return packed + b"\0" * (len(packed) % 2)


def _jpeg_baseline(pixels: Stored, bits: int) -> bytes:
    if pixels.dtype != np.uint8:
        raise ValueError("baseline JPEG supports 8 bits, the image has more")
    return bytes(imagecodecs.jpeg8_encode(pixels, level=JPEG_QUALITY))


def _jpeg_lossless(predictor: int) -> Callable[[Stored, int], bytes]:
    def encoder(pixels: Stored, bits: int) -> bytes:
        options: dict[str, Any] = {"lossless": True, "predictor": predictor}
        return bytes(imagecodecs.jpeg8_encode(pixels, bitspersample=bits, **options))

    return encoder


def _jpeg_ls(near: int) -> Callable[[Stored, int], bytes]:
    def encoder(pixels: Stored, bits: int) -> bytes:
        wrapped = bytes(imagecodecs.jpegls_encode(pixels, level=near))
        return wrapped[wrapped.index(b"\xff\xd8\xff\xf7") :]  # without CharLS' SPIFF header

    return encoder


def _jpeg_2000(decibels: int) -> Callable[[Stored, int], bytes]:
    def encoder(pixels: Stored, bits: int) -> bytes:
        options: dict[str, Any] = {"codecformat": "j2k", "numthreads": 1, "bitspersample": bits}
        reversible = not decibels
        return bytes(
            imagecodecs.jpeg2k_encode(pixels, level=decibels, reversible=reversible, **options)
        )

    return encoder


_ENCODERS: dict[str, Callable[[Stored, int], bytes]] = {
    "rle": _rle,
    "jpeg-baseline": _jpeg_baseline,
    "jpeg-lossless": _jpeg_lossless(JPEG_LOSSLESS_PREDICTOR),
    "jpeg-lossless-sv1": _jpeg_lossless(1),
    "jpeg-ls": _jpeg_ls(0),
    "jpeg-ls-near": _jpeg_ls(NEAR),
    "jpeg-2000-lossless": _jpeg_2000(0),
    "jpeg-2000": _jpeg_2000(JPEG_2000_DECIBELS),
}
