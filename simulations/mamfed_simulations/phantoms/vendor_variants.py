"""Write one scene in every vendor's file format variant and every transfer syntax.

All variants must display the same image. Each vendor stores different values, which its window or
lookup table maps back. A reader that applies the wrong window, inverts too early or takes padding
for tissue displays a different image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mamfed_common.runtime.files import private_directory
from mamfed_simulations.phantoms.dicom_writer import mammogram_dataset, voi_lut
from mamfed_simulations.phantoms.phantom import Phantom
from mamfed_simulations.phantoms.transfer_syntaxes import LOSSY, SYNTAXES, encode
from mamfed_simulations.phantoms.vendor_rendering import VendorLook, collimated, padding_value
from mamfed_simulations.phantoms.vendors import VENDORS

Tone = npt.NDArray[np.float64]

DARKEST, BRIGHTEST = 0.04, 0.96
"""Tones of air and of full attenuation; a SIGMOID window never reaches 0 or 1."""
WIDTH = 0.55
"""Width of the windows as a fraction of the grey range; a SIGMOID covers 1.6 times as much."""
GAMMA = 0.8
"""Exponent with which a vendor with a VOI LUT Sequence stores tones."""


class Variant(NamedTuple):
    """One file.

    Attributes:
        path: Path of the file.
        vendor: Name of the vendor.
        syntax: Its transfer syntax, a name in ``SYNTAXES``.
        lossless: Whether the syntax preserves the stored values.
    """

    path: Path
    vendor: str
    syntax: str
    lossless: bool


def displayed_tone(phantom: Phantom) -> Tone:
    """Return the tone that every variant displays: ``(H, W)`` in 0..1, tissue bright."""
    return DARKEST + (BRIGHTEST - DARKEST) * phantom.attenuation.astype(np.float64)


def padding(phantom: Phantom, look: VendorLook) -> npt.NDArray[np.bool_]:
    """Return where this vendor's variant has padding instead, ``(H, W)``."""
    return collimated(phantom) if look.display.padded else np.zeros(phantom.breast_mask.shape, bool)


def write_variants(
    folder: Path, phantom: Phantom, syntaxes: Sequence[str] = tuple(SYNTAXES)
) -> Iterator[Variant]:
    """Write a scene for every vendor and transfer syntax, without noise, blur or exposure.

    Args:
        folder: Created if missing.
        phantom: The scene.
        syntaxes: Names in ``SYNTAXES``. ``jpeg-baseline`` is written with 8 bits, the others with
            the vendor's.

    Yields:
        Each variant once its file is written.
    """
    private_directory(folder)
    for look in VENDORS.values():
        for syntax in syntaxes:
            path = folder / f"{look.name}-{syntax}.dcm"
            bits = 8 if syntax == "jpeg-baseline" else look.detector.bits_stored
            dataset = variant_dataset(phantom, look, bits)
            encode(dataset, syntax)
            dataset.save_as(path, enforce_file_format=True)
            yield Variant(path, look.name, syntax, syntax not in LOSSY)


def variant_dataset(phantom: Phantom, look: VendorLook, bits: int) -> Dataset:
    """Return a scene's data set in a vendor's style, uncompressed, with ``bits`` stored bits."""
    look = replace(look, detector=replace(look.detector, bits_stored=bits))
    stored = _store(displayed_tone(phantom), look)
    stored[padding(phantom, look)] = padding_value(look)
    dataset = mammogram_dataset(
        stored, phantom, look, patient_id="SYN1", spacing_mm=look.detector.spacing_mm
    )
    _display(dataset, look)
    return dataset


def _store(tone: Tone, look: VendorLook) -> npt.NDArray[np.uint16]:
    """Invert the mapping of :func:`_display`; readers invert MONOCHROME1 last, so do it first."""
    levels = 2**look.detector.bits_stored
    shown = 1 - tone if look.display.photometric == "MONOCHROME1" else tone
    center, width = levels / 2, round(WIDTH * levels)
    if look.display.voi_luts:
        stored = (levels - 1) * shown**GAMMA
    elif look.display.voi_function == "SIGMOID":  # PS3.3 C.11.2.1.3.1
        stored = center - width / 4 * np.log(1 / shown - 1)
    else:  # LINEAR, PS3.3 C.11.2.1.2.1
        stored = (shown - 0.5) * (width - 1) + center - 0.5
    return cast(npt.NDArray[np.uint16], np.rint(stored).astype(np.uint16))


def _display(dataset: Dataset, look: VendorLook) -> None:
    """Make the first window or table display the tone; the others stay the vendor's own."""
    levels = 2**look.detector.bits_stored
    centers, widths = [levels // 2], [round(WIDTH * levels)]
    for center, width in look.display.windows[1:]:
        centers.append(round(center * levels))
        widths.append(round(width * levels))
    dataset.WindowCenter, dataset.WindowWidth = centers, widths
    if look.display.voi_luts:
        curve = (np.arange(levels) / (levels - 1)) ** (1 / GAMMA)
        dataset.VOILUTSequence[0] = voi_lut(curve)
