"""Uncompressed DICOM files -> mammograms.

Order matters: modality LUT or rescale, then VOI LUT or window, and only then the inversion of
MONOCHROME1 (DICOM PS3.3 C.7.6.3.1.2, C.11.1, C.11.2). What pydicom says of a broken file may quote
the file, so its words never get into a message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mamfed_client.mammogram import MAX_PIXELS, Laterality, Mammogram, Pixels
from mamfed_client.rejections import Reason, Refusal

INVERTED = "MONOCHROME1"
READ_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def read_dicom(path: Path) -> Mammogram:
    """Read a single-frame grey image of an uncompressed transfer syntax.

    Grey levels are stretched to 0..1 from the darkest to the brightest pixel of the image.

    Raises:
        Refusal: The file is broken, compressed, in colour, of several frames or too large.
    """
    with _any_trouble_refused():
        _check_syntax(read_file_meta_info(path).get("TransferSyntaxUID"))
        _check_header(pydicom.dcmread(path, stop_before_pixels=True))
        dataset = pydicom.dcmread(path)
        return Mammogram(
            pixels=_grey_levels(dataset),
            laterality=_laterality(dataset),
            view=_text(dataset, "ViewPosition").upper() or None,
            spacing_mm=_spacing_mm(dataset),
            vendor=_text(dataset, "Manufacturer") or None,
        )


@contextmanager
def _any_trouble_refused() -> Iterator[None]:
    """Turn whatever comes out of pydicom (nine classes were seen) into one refusal."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        detail = f"{type(error).__name__} while reading DICOM"
        raise Refusal(Reason.UNREADABLE_IMAGE, detail) from None


def _check_syntax(syntax: UID | None) -> None:
    """Look at the file meta group only: a deflated data set inflates as soon as it is read."""
    if syntax is None:
        raise Refusal(Reason.UNREADABLE_IMAGE, "(0002,0010) Transfer Syntax UID is missing")
    if syntax in READ_SYNTAXES:
        return
    if syntax.name == syntax:  # pydicom has no name for it; the text may be anything
        raise Refusal(Reason.UNSUPPORTED_IMAGE, "unknown transfer syntax")
    kind = "transfer syntax" if syntax == ExplicitVRBigEndian else "compressed transfer syntax"
    raise Refusal(Reason.UNSUPPORTED_IMAGE, f"{kind} {syntax.name} not read yet")


def _check_header(dataset: Dataset) -> None:
    """Refuse by the header, before any pixel is decoded."""
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        size = f"{dataset.Columns} x {dataset.Rows} pixels, at most {MAX_PIXELS} are read"
        raise Refusal(Reason.UNSUPPORTED_IMAGE, size)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise Refusal(Reason.UNSUPPORTED_IMAGE, f"{frames} frames, one is read")
    if dataset.PhotometricInterpretation not in (INVERTED, "MONOCHROME2"):
        raise Refusal(Reason.UNSUPPORTED_IMAGE, "(0028,0004) is neither MONOCHROME1 nor 2")


def _grey_levels(dataset: Dataset) -> Pixels:
    """Return ``(H, W)`` in 0..1, tissue bright.

    Presentation LUT Shape is not looked at: in a mammogram INVERSE only repeats what MONOCHROME1
    says (PS3.3 C.8.11.3), so obeying both would invert twice.
    """
    levels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = float(levels.min()), float(levels.max())
    if not math.isfinite(high - low):
        raise Refusal(Reason.UNREADABLE_IMAGE, "grey levels are not finite")
    pixels: Pixels = np.subtract(levels, low, dtype=np.float64).astype(np.float32)
    pixels /= np.float32(max(high - low, 1e-30))
    return 1 - pixels if dataset.PhotometricInterpretation == INVERTED else pixels


def _laterality(dataset: Dataset) -> Laterality | None:
    """Take Image Laterality (0020,0062), else Laterality (0020,0060)."""
    for keyword in ("ImageLaterality", "Laterality"):
        match _text(dataset, keyword).upper():
            case "L":
                return "L"
            case "R":
                return "R"
    return None


def _spacing_mm(dataset: Dataset) -> float | None:
    """Take the row spacing on the detector (0018,1164), else Pixel Spacing (0028,0030)."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        spacing = dataset.get(keyword)
        if spacing and math.isfinite(spacing[0]) and spacing[0] > 0:
            return float(spacing[0])
    return None


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()
