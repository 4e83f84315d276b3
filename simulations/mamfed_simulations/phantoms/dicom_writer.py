"""Write phantoms as Digital Mammography X-Ray Image Storage - For Presentation files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from mamfed_common.runtime.seeds import generator
from mamfed_simulations.phantoms.phantom import Laterality, Phantom, View
from mamfed_simulations.phantoms.transfer_syntaxes import encode
from mamfed_simulations.phantoms.vendor_rendering import VendorLook, padding_value

_DATE, _TIME = "20240102", "101500"

# PS3.16 CID 4014 and CID 4, by SNOMED CT.
_VIEW_CODES: dict[View, tuple[str, str]] = {
    "CC": ("399162004", "cranio-caudal"),
    "MLO": ("399368009", "medio-lateral oblique"),
}
# Direction of the rows, then of the columns (PS3.3 C.7.6.1.1.1).
_ORIENTATIONS: dict[tuple[Laterality, View], list[str]] = {
    ("L", "CC"): ["A", "R"],
    ("R", "CC"): ["P", "L"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "MLO"): ["P", "FL"],
}


def write_dicom(
    path: Path,
    pixels: npt.NDArray[np.uint16],
    phantom: Phantom,
    look: VendorLook,
    *,
    patient_id: str,
    spacing_mm: float,
    instance: int = 1,
    syntax: str = "",
) -> None:
    """Write one mammogram.

    The same arguments give the same bytes: identifiers are derived from ``patient_id`` and
    ``instance``, and dates are fixed.

    Args:
        path: The file to write.
        pixels: ``(H, W)`` uint16 from ``vendor_rendering.apply_look``.
        phantom: The imaged scene.
        look: The vendor.
        patient_id: Pseudonym, from which the study's identifier is derived, too.
        spacing_mm: Side of a pixel.
        instance: Number of the image within the patient's study, from 1.
        syntax: Transfer syntax, a name in ``transfer_syntaxes.SYNTAXES``; default: vendor's own.
    """
    dataset = mammogram_dataset(
        pixels, phantom, look, patient_id=patient_id, spacing_mm=spacing_mm, instance=instance
    )
    encode(dataset, syntax or look.storage.syntax)
    dataset.save_as(path, enforce_file_format=True)


def mammogram_dataset(
    pixels: npt.NDArray[np.uint16],
    phantom: Phantom,
    look: VendorLook,
    *,
    patient_id: str,
    spacing_mm: float,
    instance: int = 1,
) -> Dataset:
    """Return one mammogram's uncompressed data set, as :func:`write_dicom` stores it."""
    dataset = Dataset()
    _describe_study(dataset, patient_id, instance)
    _describe_machine(dataset, look, spacing_mm)
    _describe_breast(dataset, phantom)
    _describe_pixels(dataset, look, pixels)
    _describe_windows(dataset, look)
    if look.display.voi_luts:
        dataset.VOILUTSequence = [_linear_lut(look, *lut) for lut in look.display.voi_luts]
    if look.storage.overlay:
        _describe_overlay(dataset)
    if generator(0, "stripped", patient_id).random() < look.storage.stripped:
        for keyword in ("Modality", "ImageType", "PresentationLUTShape"):
            delattr(dataset, keyword)
    dataset.file_meta = file_meta(dataset)
    return dataset


def file_meta(dataset: Dataset) -> FileMetaDataset:
    """Return the file meta information of an uncompressed data set (PS3.10 clause 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Otherwise pydicom writes its own version, and the bytes would change with it.
    meta.ImplementationClassUID = make_uid("mamfed", "implementation")
    meta.ImplementationVersionName = "MAMFED"
    return meta


def make_uid(*names: str) -> UID:
    """Return an identifier derived from names; the same names give the same identifier."""
    uid: UID = generate_uid(entropy_srcs=list(names))
    return uid


def _describe_study(dataset: Dataset, patient_id: str, instance: int) -> None:
    """Fill the patient, study and series modules and the instance's identifiers."""
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = make_uid(patient_id, "instance", str(instance))
    dataset.StudyInstanceUID = make_uid(patient_id, "study")
    dataset.SeriesInstanceUID = make_uid(patient_id, "series")
    dataset.PatientName = "Phantom^Synthetic"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    for event in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{event}Date", _DATE)
        setattr(dataset, f"{event}Time", _TIME)
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = instance
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _describe_machine(dataset: Dataset, look: VendorLook, spacing_mm: float) -> None:
    """Fill the equipment, detector and mammography positioner attributes."""
    if generator(0, "nameless", dataset.PatientID).random() >= look.storage.nameless:
        dataset.Manufacturer = look.manufacturer
    dataset.ManufacturerModelName = look.model
    dataset.ImageType = list(look.storage.image_type)
    if look.storage.conversion_type:
        dataset.ConversionType = look.storage.conversion_type
    dataset.SoftwareVersions = "mamfed phantom"
    dataset.DetectorType = "DIRECT"
    dataset.PositionerType = "MAMMOGRAPHIC"
    spacing = [f"{spacing_mm:.6g}"] * 2
    dataset.ImagerPixelSpacing = spacing
    if look.display.pixel_spacing:
        dataset.PixelSpacing = spacing


def _describe_breast(dataset: Dataset, phantom: Phantom) -> None:
    """Fill side, view and orientation (PS3.3 C.8.11.7)."""
    view = code(*_VIEW_CODES[phantom.view])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.ViewPosition = phantom.view
    dataset.ImageLaterality = phantom.laterality
    dataset.PatientOrientation = _ORIENTATIONS[phantom.laterality, phantom.view]
    dataset.AnatomicRegionSequence = [code("76752008", "Breast")]
    dataset.BodyPartExamined = "BREAST"
    dataset.OrganExposed = "BREAST"
    dataset.BreastImplantPresent = "NO"
    dataset.AcquisitionContextSequence = []


def code(value: str, meaning: str) -> Dataset:
    """Return a SNOMED CT item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item


def _describe_pixels(dataset: Dataset, look: VendorLook, pixels: npt.NDArray[np.uint16]) -> None:
    """Fill the image pixel and grey scale attributes and the pixel data."""
    inverted = look.display.photometric == "MONOCHROME1"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = look.display.photometric
    dataset.BitsAllocated = 8 if look.detector.bits_stored <= 8 else 16
    dataset.BitsStored = look.detector.bits_stored
    dataset.HighBit = look.detector.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    # 1: small values mean little radiation; -1: small values mean much (C.8.11.3.1.2).
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if look.display.padded:
        dataset.add_new("PixelPaddingValue", "US", padding_value(look))
    for keyword, limit in zip(
        ("PixelPaddingValue", "PixelPaddingRangeLimit"), look.display.unused_padding, strict=False
    ):
        dataset.add_new(keyword, "US", limit)
    if dataset.BitsAllocated == 8:
        dataset.add_new("PixelData", "OB", even(pixels.astype(np.uint8).tobytes()))
    else:
        dataset.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())


def _describe_windows(dataset: Dataset, look: VendorLook) -> None:
    """Convert the look's windows to stored values, which are inverted in MONOCHROME1."""
    levels = 2**look.detector.bits_stored
    inverted = look.display.photometric == "MONOCHROME1"
    centers = [1 - center if inverted else center for center, _ in look.display.windows]
    dataset.WindowCenter = [str(round(center * levels)) for center in centers]
    dataset.WindowWidth = [str(round(width * levels)) for _, width in look.display.windows]
    if look.display.voi_function:
        dataset.VOILUTFunction = look.display.voi_function


def _linear_lut(look: VendorLook, center: float, width: float) -> Dataset:
    """Return the lookup table of a linear window, given as fractions (PS3.3 C.11.2.1.2.1)."""
    levels = 2**look.detector.bits_stored
    center, width = round(center * levels), round(width * levels)
    curve = (np.arange(levels) - (center - 0.5)) / (width - 1) + 0.5
    first, last = np.flatnonzero(curve <= 0)[-1:], np.flatnonzero(curve >= 1)[:1]
    start = int(first[0]) if first.size else 0
    return voi_lut(curve[start : int(last[0]) + 1 if last.size else levels], start)


def voi_lut(curve: npt.NDArray[np.float64], first: int = 0) -> Dataset:
    """Return an item of a VOI LUT Sequence (PS3.3 C.11.2.1.1).

    Args:
        curve: ``(n,)`` displayed tone of ``n`` stored values, clipped to 0..1.
        first: The first of these values; lower values map to its tone, higher ones to the last.
    """
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(curve), first, 16])
    item.LUTExplanation = "NORMAL"
    item.add_new("LUTData", "OW", np.rint(np.clip(curve, 0, 1) * 65535).astype("<u2").tobytes())
    return item


def _describe_overlay(dataset: Dataset) -> None:
    """Add an overlay frame across the lower right corner and beyond it (PS3.3 C.9.2)."""
    rows, columns = 48, 64
    marks = np.zeros((rows, columns), np.uint8)
    marks[[0, -1]] = marks[:, [0, -1]] = 1
    origin = [dataset.Rows - rows // 2, dataset.Columns - columns // 2]
    dataset.add_new(0x60000010, "US", rows)
    dataset.add_new(0x60000011, "US", columns)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", origin)
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OW", np.packbits(marks, bitorder="little").tobytes())


def even(data: bytes) -> bytes:
    """Pad a value to even length (PS3.5 8.1.1)."""
    return data + b"\0" * (len(data) % 2)
