"""PNG, TIFF and JPEG files -> mammograms and lesion masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_client.mammogram import MAX_PIXELS, Mammogram, Mask, Pixels
from mamfed_client.rejections import Reason, Refusal

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})


def read_image(path: Path) -> Mammogram:
    """Read an 8- or 16-bit grey image, tissue bright.

    Grey levels are divided by the data type's full scale. 12-bit levels in a 16-bit file stay
    below 1/16; preprocessing normalises them. Of a TIFF with several pages the first is read.

    Raises:
        Refusal: The file cannot be decoded, or is neither grey nor of 8 or 16 bits.
    """
    stored = _decode(path, Reason.UNREADABLE_IMAGE)
    if stored.dtype not in (np.uint8, np.uint16):
        raise Refusal(Reason.UNSUPPORTED_IMAGE, f"{stored.dtype} pixels; 8- or 16-bit are read")
    grey = _grey(stored)
    pixels: Pixels = np.divide(grey, np.iinfo(grey.dtype).max, dtype=np.float32)
    return Mammogram(pixels)


def read_mask(path: Path) -> Mask:
    """Read a lesion mask: ``(H, W)`` bool, true where any colour channel is not zero.

    Raises:
        Refusal: The file cannot be decoded.
    """
    stored = _decode(path, Reason.UNREADABLE_MASK)
    colours = stored[..., :3] if stored.ndim == 3 else stored[..., None]
    marked: Mask = np.asarray(np.any(colours != 0, axis=-1))
    return marked


def _decode(path: Path, unreadable: Reason) -> npt.NDArray[Any]:
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise Refusal(unreadable, f"{type(error).__name__} while decoding") from None
    if stored is None:
        raise Refusal(unreadable, "not a PNG, TIFF or JPEG that can be decoded")
    if stored.shape[0] * stored.shape[1] > MAX_PIXELS:
        raise Refusal(unreadable, f"{stored.shape[1]} x {stored.shape[0]} pixels are too many")
    image: npt.NDArray[Any] = stored
    return image


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
