"""Define three fictional vendors and write synthetic cohorts of hospitals that use them.

Each vendor imitates properties of real files. A cohort is a folder that a client can read as if it
came from a picture archive: DICOM images, PNG masks and a table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mamfed_common.runtime.files import cannot_write, private_directory
from mamfed_common.runtime.seeds import derive_seed, generator
from mamfed_simulations.phantoms.dicom_writer import write_dicom
from mamfed_simulations.phantoms.phantom import Phantom, Population, View, draw_patient
from mamfed_simulations.phantoms.vendor_rendering import (
    Detector,
    Display,
    Response,
    Storage,
    VendorLook,
    apply_look,
)

__all__ = ["DEMO_SCALE", "VENDORS", "VendorLook", "apply_look", "write_cohort", "write_dicom"]

TABLE, SOURCE = "labels.csv", "synthetic"
DEMO_SCALE = 0.22
"""Gives images of about 500 to 730 rows: fast to draw, and larger than the demo's networks use."""

_AURORA = VendorLook(
    # Like GE: 12 bits, linear, MONOCHROME2, three windows with SIGMOID and a preferred VOI LUT
    # Sequence of three items, each from its first to its last level; a padding range below all
    # pixels, only Imager Pixel Spacing, Conversion Type WSD, JPEG Lossless.
    name="aurora",
    manufacturer="Aurora Imaging",
    model="Aurora 2D",
    detector=Detector(2294, 1914, 0.0941, bits_stored=12, blur=0.0010, noise=0.018),
    response=Response(gamma=1.0, steepness=0.0, floor=0.04, ceiling=0.9, background=0.02),
    display=Display(
        "MONOCHROME2",
        windows=((0.45, 0.5), (0.45, 0.4), (0.45, 0.65)),
        voi_function="SIGMOID",
        pixel_spacing=False,
        voi_luts=((0.45, 0.85), (0.45, 0.65), (0.45, 1.1)),
        unused_padding=(0, 0),
    ),
    storage=Storage(
        "jpeg-lossless-sv1", image_type=("ORIGINAL", "PRIMARY", ""), conversion_type="WSD"
    ),
    population=Population(),
)
_BOREALIS = VendorLook(
    # Like Hologic: MONOCHROME1, padding with the largest value, three windows with SIGMOID,
    # JPEG 2000, in some files neither Modality nor Image Type; sharp and noisy, bright fat, denser
    # breasts, more calcifications.
    name="borealis",
    manufacturer="Borealis Medical",
    model="Borealis Dimension",
    detector=Detector(3328, 2560, 0.07, bits_stored=14, blur=0.0004, noise=0.03),
    response=Response(gamma=0.6, steepness=0.0, floor=0.1, ceiling=0.85, background=0.03),
    display=Display(
        "MONOCHROME1",
        windows=((0.52, 0.55), (0.52, 0.45), (0.52, 0.7)),
        voi_function="SIGMOID",
        padded=True,
    ),
    storage=Storage("jpeg-2000-lossless", stripped=0.25),
    population=Population(
        densities=(0.05, 0.3, 0.45, 0.2),
        calcification_share=0.42,
        both_share=0.18,
        spiculation=1.2,
        contrast=1.0,
    ),
)
_CIRRUS = VendorLook(
    # Like Siemens: uncompressed, with an overlay that extends beyond the image, some files without
    # Manufacturer; an S-shaped response that darkens fat and saturates dense tissue; soft, a raised
    # background, fattier breasts, mostly masses with short spicules.
    name="cirrus",
    manufacturer="Cirrus Health",
    model="Cirrus Inspire",
    detector=Detector(2800, 2082, 0.085, bits_stored=10, blur=0.0018, noise=0.022),
    response=Response(gamma=1.1, steepness=7.0, floor=0.06, ceiling=1.0, background=0.06),
    display=Display("MONOCHROME2", windows=((0.5, 1.0),), voi_function="LINEAR"),
    storage=Storage("explicit", overlay=True, nameless=0.25),
    population=Population(
        densities=(0.15, 0.45, 0.32, 0.08),
        calcification_share=0.2,
        both_share=0.1,
        spiculation=0.75,
        contrast=0.88,
    ),
)
VENDORS: dict[str, VendorLook] = {look.name: look for look in (_AURORA, _BOREALIS, _CIRRUS)}


class TableRow(NamedTuple):
    """One line of ``labels.csv``; the names are its header."""

    image: str
    mask: str
    patient_id: str
    laterality: str
    view: str
    pathology: str
    birads: int
    density: str
    finding: str
    spacing_mm: str
    vendor: str
    source: str


def write_cohort(
    folder: Path,
    look: VendorLook,
    *,
    benign: int,
    malignant: int,
    seed: int,
    scale: float = DEMO_SCALE,
) -> None:
    """Write the mammograms of one hospital: ``images/``, ``masks/`` and ``labels.csv``.

    A patient has a CC and an MLO view of one breast; with an odd number of images, the last patient
    has only the CC. The same arguments give the same bytes, and a larger cohort with the same seed
    contains the patients of a smaller one.

    Args:
        folder: Created if missing; files of the same names are replaced.
        look: The hospital's vendor.
        benign: Number of images without a malignant finding, including normal ones.
        malignant: Number of images with a malignant finding and its mask.
        seed: Seed of the cohort.
        scale: Size of the images, as a fraction of the detector's.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        for name in ("images", "masks"):
            private_directory(folder / name)
        rows: list[TableRow] = []
        for kind, number, views in _patients(benign, malignant):
            patient_id = f"SYN{derive_seed(seed, look.name, kind, number) % 10**10:010d}"
            rng = generator(seed, look.name, kind, number)
            phantoms = draw_patient(
                rng,
                look.detector.shape(scale),
                look.population,
                malignant=kind == "malignant",
                views=views,
            )
            rows += _write_patient(folder, look, phantoms, patient_id, len(rows), scale, rng)
        write_table(folder / TABLE, rows)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _patients(benign: int, malignant: int) -> Iterator[tuple[str, int, tuple[View, ...]]]:
    """Yield each patient's kind, number and views."""
    for kind, images in (("benign", benign), ("malignant", malignant)):
        for first in range(0, images, 2):
            yield kind, first // 2, ("CC", "MLO") if first + 1 < images else ("CC",)


def _write_patient(
    folder: Path,
    look: VendorLook,
    phantoms: list[Phantom],
    patient_id: str,
    written: int,
    scale: float,
    rng: np.random.Generator,
) -> list[TableRow]:
    """Write one patient's images and masks, numbered from ``written`` + 1."""
    pathology, birads = _assess(phantoms, rng)
    spacing_mm = look.detector.spacing_mm / scale
    rows = []
    for instance, phantom in enumerate(phantoms, start=1):
        image, mask = (f"images/{written + instance:04d}.dcm", "")
        pixels = apply_look(phantom, look, rng)
        write_dicom(
            folder / image,
            pixels,
            phantom,
            look,
            patient_id=patient_id,
            spacing_mm=spacing_mm,
            instance=instance,
        )
        if pathology == "malignant":
            mask = f"masks/{written + instance:04d}.png"
            write_mask(folder / mask, phantom.mask)
        rows.append(
            TableRow(
                image=image,
                mask=mask,
                patient_id=patient_id,
                laterality=phantom.laterality,
                view=phantom.view,
                pathology=pathology,
                birads=birads,
                density=phantom.density,
                finding=phantom.finding,
                spacing_mm=f"{spacing_mm:.6g}",
                vendor=look.name,
                source=SOURCE,
            )
        )
    return rows


def _assess(phantoms: list[Phantom], rng: np.random.Generator) -> tuple[str, int]:
    """Return the patient's pathology and BI-RADS category, as a radiologist would assign them."""
    if phantoms[0].finding:
        return "malignant", 5 if "mass" in phantoms[0].finding and rng.random() < 0.7 else 4
    if any(phantom.look_alikes for phantom in phantoms):
        return "benign", 2
    return "normal", 1


def write_mask(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write a mask, ``(H, W)`` bool, as 0 and 255."""
    _, encoded = cv2.imencode(".png", mask.astype(np.uint8) * np.uint8(255))
    path.write_bytes(encoded.tobytes())


def write_table(path: Path, rows: list[TableRow]) -> None:
    """Write ``labels.csv``."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(TableRow._fields)
        writer.writerows(rows)
