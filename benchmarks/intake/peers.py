"""The peers of ``from_disk.py``: a plain script, and the least that can be done.

The script follows the documentation of pydicom and scikit-image. What it skips costs it no time:
in some images Otsu's largest region is dense tissue, a label or padding, and one bad file ends it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import apply_voi_lut
from skimage import filters, measure, transform

from mamfed_client.imaging.decoding.pixel_data import stored_values
from mamfed_client.imaging.grayscale import to_grey

Image = npt.NDArray[Any]


def least(path: Path, size: int) -> Image:
    """Return an image of the breast, ``(h, w)`` uint16, in the fastest possible way."""
    dataset = pydicom.dcmread(path)
    stored = stored_values(dataset)
    view = to_grey(np.ascontiguousarray(stored[4::8, 4::8]), dataset)[0]
    _, bright = cv2.threshold((view >> 8).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    _, _, pieces, _ = cv2.connectedComponentsWithStats(bright)
    left, top, width, height = 8 * pieces[1 + pieces[1:, cv2.CC_STAT_AREA].argmax(), :4]
    crop = to_grey(stored[top : top + height, left : left + width], dataset)[0]
    shape = fitted(crop.shape, size)
    return np.asarray(cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_AREA))


def plainly(path: Path, size: int) -> Image:
    """Return an image of the breast, ``(h, w)`` float32 in 0..1, as a plain script does."""
    image, _, region = plain_breast(path)
    top, left, bottom, right = region.bbox
    crop = image[top:bottom, left:right]
    return np.asarray(transform.resize(crop, fitted(crop.shape, size), anti_aliasing=True))


def plain_sample(path: Path, size: int) -> tuple[Image, Image, str]:
    """Also compute what mamfed provides: the breast's outline and percentiles, the file's hash."""
    image, labels, region = plain_breast(path)
    top, left, bottom, right = region.bbox
    crop, breast = (a[top:bottom, left:right] for a in (image, labels == region.label))
    shape = fitted(crop.shape, size)
    black, white = np.percentile(crop[breast], (0.5, 99.8))
    breast_mask = transform.resize(breast, shape, order=0, anti_aliasing=False)
    small = (transform.resize(crop, shape, anti_aliasing=True) - black) / (white - black)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return np.where(breast_mask, small.clip(0, 1), 0), breast_mask, sha256


def plain_breast(path: Path) -> tuple[Image, Image, Any]:
    """Read a file and find the breast; returns image, labels and the breast's region."""
    dataset = pydicom.dcmread(path)
    try:
        stored = dataset.pixel_array
    except (NotImplementedError, RuntimeError, AttributeError):  # only GPL plugins would
        stored = stored_values(dataset)
    image = apply_voi_lut(stored, dataset).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = image.max() - image
    image = (image - image.min()) / (image.max() - image.min())
    labels = measure.label(image > filters.threshold_otsu(image))
    return image, labels, max(measure.regionprops(labels), key=lambda region: region.area)


def fitted(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Scale a shape so that its longer side is ``size``."""
    scale = size / max(shape)
    return round(shape[0] * scale), round(shape[1] * scale)
