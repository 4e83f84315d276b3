"""One scene in every vendor's file habits and every transfer syntax, to be displayed the same.

Each vendor stores other values of the scene's tone, and its window or table undoes that. A reader
that applies the wrong window, inverts too early or takes padding for tissue shows another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from mamfed_simulations.phantoms.dicom_writer import mammogram_dataset, voi_lut
from mamfed_simulations.phantoms.phantom import Phantom
from mamfed_simulations.phantoms.transfer_syntaxes import LOSSY, SYNTAXES, encode
from mamfed_simulations.phantoms.vendor_rendering import VendorLook, collimated, padding_value
from mamfed_simulations.phantoms.vendors import VENDORS

Tone = npt.NDArray[np.float64]

DARKEST, BRIGHTEST = 0.04, 0.96
"""Tones of air and of full attenuation: a SIGMOID window never gets to 0 or 1."""
WIDTH = 0.55
"""Of the windows, as a fraction of the grey range; a SIGMOID takes 1.6 times as much."""
GAMMA = 0.8
"""Exponent by which a vendor with a VOI LUT Sequence stores tones."""


class Variant(NamedTuple):
    """One file.

    Attributes:
        path: Where it lies.
        vendor: Whose habits it has.
        syntax: Its transfer syntax, a name in ``SYNTAXES``.
        lossless: Whether the stored values came through unchanged.
    """

    path: Path
    vendor: str
    syntax: str
    lossless: bool


def displayed_tone(phantom: Phantom) -> Tone:
    """Return what every variant displays: ``(H, W)`` in 0..1, tissue bright."""
    return DARKEST + (BRIGHTEST - DARKEST) * phantom.attenuation.astype(np.float64)


def padding(phantom: Phantom, look: VendorLook) -> npt.NDArray[np.bool_]:
    """Return where a variant of this vendor is padded instead, ``(H, W)``."""
    return collimated(phantom) if look.display.padded else np.zeros(phantom.breast_mask.shape, bool)


def write_variants(
    folder: Path, phantom: Phantom, syntaxes: Sequence[str] = tuple(SYNTAXES)
) -> Iterator[Variant]:
    """Write a scene by every vendor in every transfer syntax, without noise, blur or exposure.

    Args:
        folder: Made if missing.
        phantom: The scene.
        syntaxes: Names in ``SYNTAXES``. ``jpeg-baseline`` is written with 8 bits, the others with
            the vendor's.

    Yields:
        Each file when it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for look in VENDORS.values():
        for syntax in syntaxes:
            path = folder / f"{look.name}-{syntax}.dcm"
            bits = 8 if syntax == "jpeg-baseline" else look.detector.bits_stored
            dataset = variant_dataset(phantom, look, bits)
            encode(dataset, syntax)
            dataset.save_as(path, enforce_file_format=True)
            yield Variant(path, look.name, syntax, syntax not in LOSSY)


def variant_dataset(phantom: Phantom, look: VendorLook, bits: int) -> Dataset:
    """Describe a scene with a vendor's habits, uncompressed, stored in so many bits."""
    look = replace(look, detector=replace(look.detector, bits_stored=bits))
    stored = _store(displayed_tone(phantom), look)
    stored[padding(phantom, look)] = padding_value(look)
    dataset = mammogram_dataset(
        stored, phantom, look, patient_id="SYN1", spacing_mm=look.detector.spacing_mm
    )
    _display(dataset, look)
    return dataset


def _store(tone: Tone, look: VendorLook) -> npt.NDArray[np.uint16]:
    """Undo what :func:`_display` lets a reader do; MONOCHROME1 is inverted last, so first here."""
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
    """Make the first window or table the one that shows the tone; the others are the vendor's."""
    levels = 2**look.detector.bits_stored
    centers, widths = [levels // 2], [round(WIDTH * levels)]
    for center, width in look.display.windows[1:]:
        centers.append(round(center * levels))
        widths.append(round(width * levels))
    dataset.WindowCenter, dataset.WindowWidth = centers, widths
    if look.display.voi_luts:
        curve = (np.arange(levels) / (levels - 1)) ** (1 / GAMMA)
        dataset.VOILUTSequence[0] = voi_lut(curve)
