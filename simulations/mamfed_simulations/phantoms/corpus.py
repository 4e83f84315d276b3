"""Write folders with bad files among good ones, each with a known reason for rejection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from mamfed_client.imaging.rejections import Reason
from mamfed_common.runtime.files import cannot_write, private_directory
from mamfed_common.runtime.seeds import derive_seed, generator
from mamfed_simulations.phantoms.corrupt_files import BROKEN, Maker, saved
from mamfed_simulations.phantoms.dicom_writer import mammogram_dataset
from mamfed_simulations.phantoms.ineligible_files import DUPLICATES, UNWANTED
from mamfed_simulations.phantoms.phantom import Phantom, draw_patient
from mamfed_simulations.phantoms.vendor_rendering import VendorLook, apply_look
from mamfed_simulations.phantoms.vendors import VENDORS, TableRow, write_mask, write_table

KINDS: dict[str, tuple[Reason, Maker]] = {**BROKEN, **UNWANTED, **DUPLICATES}
"""All kinds of bad files: the rejection reason, and the function that makes one."""

INTAKE_SCALE = 0.065
"""Images of about 150 to 215 rows."""
SCENES = 8
"""Patients drawn per vendor, half of them malignant; they are reused in turn."""


class _Image(NamedTuple):
    """A mammogram to write; its number seeds noise and exposure."""

    number: int
    phantom: Phantom
    look: VendorLook
    patient_id: str

    def dataset(self, seed: int, scale: float) -> Dataset:
        """Return the mammogram's data set; every call returns the same."""
        return mammogram_dataset(
            apply_look(self.phantom, self.look, generator(seed, "image", self.number)),
            self.phantom,
            self.look,
            patient_id=self.patient_id,
            spacing_mm=self.look.detector.spacing_mm / scale,
            instance=self.number + 1,
        )

    def file(self, kind: str, seed: int, scale: float) -> bytes:
        """Return its file content; ``kind`` names a kind of bad file, or is empty."""
        dataset = self.dataset(seed, scale)
        if kind:
            return KINDS[kind][1](dataset)
        return saved(dataset, self.look.storage.syntax)


def write_bad_files(
    folder: Path, seed: int, scale: float = INTAKE_SCALE
) -> list[tuple[str, Reason]]:
    """Write one file of each kind in ``KINDS``, and ``00-good.dcm``, which the duplicates repeat.

    Args:
        folder: Created if missing.
        seed: Seed of the images.
        scale: Size of the images, as a fraction of the detector's.

    Returns:
        The names of the bad files in order, with the expected rejection reasons.

    Raises:
        OutputError: The folder cannot be written.
    """
    expected = []
    with _writing(folder):
        good, *images = islice(_images(seed, scale), len(KINDS) + 1)
        (folder / "00-good.dcm").write_bytes(good.file("", seed, scale))
        for image, (kind, (reason, _)) in zip(images, KINDS.items(), strict=True):
            name = f"{image.number:02d}-{kind}.dcm"
            (folder / name).write_bytes(_shown(image, kind, good).file(kind, seed, scale))
            expected.append((name, reason))
    return expected


def write_intake_folder(
    folder: Path,
    images: int,
    bad: int,
    seed: int,
    scale: float = INTAKE_SCALE,
    *,
    table: bool = True,
) -> dict[Reason, int]:
    """Write a hospital's folder in which some files are bad, cycling through the kinds.

    Args:
        folder: Created if missing; files of the same names are replaced.
        images: Number of files in ``images/``.
        bad: Number of bad files; below ``images``, because the first file is always good.
        seed: Seed of the folder.
        scale: Size of the images, as a fraction of the detector's.
        table: Whether to write ``labels.csv`` and masks; otherwise the folder holds DICOM only.

    Returns:
        The expected number of rejected files by reason.

    Raises:
        OutputError: The folder cannot be written.
    """
    spots = generator(seed, "bad").choice(np.arange(1, images), bad, replace=False)
    kinds = dict(zip(sorted(spots.tolist()), cycle(KINDS), strict=False))
    everything = list(islice(_images(seed, scale), images))
    good, rows = everything[0], []
    with _writing(folder / "images"), _writing(folder / "masks" if table else folder):
        for image in everything:
            kind = kinds.get(image.number, "")
            good = good if kind else image
            shown = _shown(image, kind, good)
            row = _row(shown, image.number, scale, sound=shown is good)
            (folder / row.image).write_bytes(shown.file(kind, seed, scale))
            if table and row.mask:
                write_mask(folder / row.mask, shown.phantom.mask)
            rows.append(row)
        if table:
            write_table(folder / "labels.csv", rows)
    return dict(Counter(KINDS[kind][0] for kind in kinds.values()))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        private_directory(folder)
        yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def _images(seed: int, scale: float) -> Iterator[_Image]:
    """Yield images endlessly: two views per patient, cycling through the vendors."""
    scenes = {look.name: list(_scenes(look, seed, scale)) for look in VENDORS.values()}
    for patient, look in enumerate(cycle(VENDORS.values())):
        patient_id = f"SYN{derive_seed(seed, 'intake', patient) % 10**10:010d}"
        views = scenes[look.name][patient // len(VENDORS) % SCENES]
        for number, phantom in enumerate(views, start=2 * patient):
            yield _Image(number, phantom, look, patient_id)


def _scenes(look: VendorLook, seed: int, scale: float) -> Iterator[list[Phantom]]:
    for number in range(SCENES):
        yield draw_patient(
            generator(seed, "scene", look.name, number),
            look.detector.shape(scale),
            look.population,
            malignant=number % 2 == 1,
        )


def _shown(image: _Image, kind: str, good: _Image) -> _Image:
    """Return the image behind a file: for a duplicate, the preceding good image.

    Other bad files get their own patients, so that they do not affect good images.
    """
    if kind in DUPLICATES:
        return good
    return image._replace(patient_id=f"BAD{image.number:07d}") if kind else image


def _row(image: _Image, number: int, scale: float, *, sound: bool) -> TableRow:
    """Return an image's table row; bad images have no laterality and no malignancy."""
    phantom = image.phantom
    malignant = sound and bool(phantom.finding)
    return TableRow(
        image=f"images/{number:05d}.dcm",
        mask=f"masks/{number:05d}.png" if malignant else "",
        patient_id=image.patient_id,
        laterality=phantom.laterality if sound else "",
        view=phantom.view,
        pathology="malignant" if malignant else "normal",
        birads=5 if malignant else 1,
        density=phantom.density,
        finding=phantom.finding if malignant else "",
        spacing_mm=f"{image.look.detector.spacing_mm / scale:.6g}",
        vendor=image.look.name,
        source="synthetic",
    )
