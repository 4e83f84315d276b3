"""Read masks from PNG, TIFF, JPEG and BMP files."""

from __future__ import annotations

import cv2
import numpy as np

from mamfed_client.annotations.levels import regions
from mamfed_client.annotations.outlines import Outlines, unreadable
from mamfed_client.imaging.mammogram import MAX_PIXELS
from mamfed_client.imaging.picture_headers import is_picture, read_picture_header


def read(data: bytes, image_name: str = "") -> Outlines:
    """Read a mask or class map by pixel value, ignoring transparency.

    Raises:
        FileRejected: The picture is corrupt, truncated, an image rather than a mask, rotated,
            multi-page or too large, or it is a TIFF whose zero is white: OpenCV inverts 8-bit but
            not 16-bit files, and some programs mark a finding in black.
    """
    if not is_picture(data):
        raise unreadable("not a PNG, TIFF, JPEG or BMP")
    header = read_picture_header(data)
    if header.width * header.height > MAX_PIXELS:
        raise unreadable(f"a mask of {header.width} x {header.height} pixels")
    if header.white_is_zero:
        raise unreadable("a TIFF whose zero is white; save it with zero as black")
    stored = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise unreadable(f"a {header.format} that cannot be decoded")
    colours = stored[..., :3] if stored.ndim == 3 else stored
    return Outlines(masks=regions(colours, lossy=header.format == "JPEG"), by_value=True)
