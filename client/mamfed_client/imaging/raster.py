"""Read mammograms from PNG, TIFF, JPEG and PGM pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.imaging.decoding.pixel_evidence import check_byte_order, check_sign
from mamfed_client.imaging.mammogram import MAX_PIXELS, Grey, Mammogram
from mamfed_client.imaging.picture_headers import PictureHeader, read_picture_header
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.tone_evidence import every_nth, find_air, stretched_tones
from mamfed_common.transforms.sample import FULL_SCALE

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".pgm"})


def read_image(data: bytes, *, to_show: bool = False) -> Mammogram:
    """Read an 8- or 16-bit greyscale picture, tissue bright.

    8-bit levels are spread over 16 bits. 12-bit levels in a 16-bit file stay below 1/16 and are
    left to preprocessing. The polarity declared in the file is applied.

    Args:
        data: The file's bytes; the format is detected from the content.
        to_show: Read for display only: accept pixels that contradict the header.

    Raises:
        FileRejected: The file cannot be decoded, is truncated or too large, is not 8- or 16-bit
            greyscale, holds several images or a rotated one, or its pixels contradict its header.
    """
    header = read_picture_header(data)
    _check_is_image(header, to_show=to_show)
    stored = _decode(data, header)
    if stored.dtype not in (np.uint8, np.uint16):
        raise FileRejected(
            Reason.UNSUPPORTED_IMAGE, f"{stored.dtype} pixels; 8- or 16-bit are read"
        )
    grey = _grey(stored)
    if not to_show:
        _check_stored(grey, header)
    if header.white_is_zero and grey.dtype == np.uint16:  # OpenCV inverts those of 8 bits
        grey = FULL_SCALE - grey
    if not to_show and find_air(stretched_tones(every_nth(grey))) > 0:
        raise FileRejected(
            Reason.INVERTED, "the air is bright; save the picture with tissue bright"
        )
    spread = FULL_SCALE // np.iinfo(grey.dtype).max
    levels: Grey = np.multiply(grey, spread, dtype=np.uint16)
    return Mammogram(levels)


def _check_stored(grey: npt.NDArray[Any], header: PictureHeader) -> None:
    """Reject pixels that contradict the header."""
    if header.top and grey.max() > header.top:
        raise FileRejected(
            Reason.CONTRADICTION, f"levels above the {header.top} that the PGM allows"
        )
    check_byte_order(grey)
    check_sign(grey, 8 * grey.itemsize)


def _check_is_image(header: PictureHeader, *, to_show: bool) -> None:
    """Reject pictures that are valid as masks but not as mammograms."""
    if header.format == "BMP":
        raise FileRejected(
            Reason.UNREADABLE_IMAGE, "neither PNG, TIFF, JPEG nor PGM by its content"
        )
    if header.is_mask:
        detail = "a TIFF that begins with a mask; save the image alone"
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, detail)
    if header.signed:
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "signed pixels; unsigned ones are read")
    if header.gamma and not to_show:
        detail = f"a tone curve (gamma {header.gamma:g}); save it without"
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, detail)


def _decode(data: bytes, header: PictureHeader) -> npt.NDArray[Any]:
    """Decode the picture if the size in its own header is within the limit.

    OpenCV 5 fails on truncated data in all of these formats.
    """
    if header.width * header.height > MAX_PIXELS:
        detail = f"{header.width} x {header.height} pixels, at most {MAX_PIXELS} are read"
        raise FileRejected(Reason.TOO_LARGE, detail)
    # OpenCV needs a separator after the last number of a text PGM.
    terminated = data + b"\n" if header.format == "PGM" else data
    try:
        stored = cv2.imdecode(np.frombuffer(terminated, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        stored = None
    if stored is None:
        raise FileRejected(Reason.UNREADABLE_IMAGE, "a corrupt picture, or an unsupported variant")
    if stored.shape[:2] != (header.height, header.width):
        raise FileRejected(Reason.UNREADABLE_IMAGE, "the picture's size differs from its header")
    image: npt.NDArray[Any] = stored
    return image


def _grey(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the single grey channel; colour channels must be equal and alpha opaque."""
    if stored.ndim == 2:
        return stored
    first, others = stored[..., :1], stored[..., 1:3]
    if (others != first).any():
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "colour pixels; grey ones are read")
    if stored.shape[2] == 4 and (stored[..., 3] != np.iinfo(stored.dtype).max).any():
        raise FileRejected(Reason.UNSUPPORTED_IMAGE, "transparent pixels; opaque ones are read")
    return stored[..., 0]
