"""Make sound DICOM files that are not screening mammograms, as found in real exports.

Each function turns a sound uncompressed mammogram into another kind of object by changing only the
attributes that define that kind.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    BreastProjectionXRayImageStorageForPresentation,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    GrayscaleSoftcopyPresentationStateStorage,
    MammographyCADSRStorage,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
)

from mamfed_client.imaging.rejections import Reason
from mamfed_simulations.phantoms.corrupt_files import Maker, saved
from mamfed_simulations.phantoms.dicom_writer import code, even, make_uid
from mamfed_simulations.phantoms.transfer_syntaxes import stored_pixels

Change = Callable[[Dataset], None]


def _become(dataset: Dataset, sop_class: UID, modality: str) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = modality


def _lose(dataset: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        if keyword in dataset:
            delattr(dataset, keyword)


def _lose_pixels(dataset: Dataset) -> None:
    _lose(dataset, "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")
    _lose(dataset, "PhotometricInterpretation", "SamplesPerPixel", "PixelRepresentation")


def _lose_mammography(dataset: Dataset) -> None:
    """Remove every attribute that mentions a breast."""
    _lose(dataset, "PositionerType", "ViewCodeSequence", "AnatomicRegionSequence")
    _lose(dataset, "OrganExposed", "BreastImplantPresent", "PresentationIntentType")
    dataset.BodyPartExamined = "CHEST"


def _dicomdir(dataset: Dataset) -> None:
    _lose_pixels(dataset)
    _become(dataset, MediaStorageDirectoryStorage, "")
    record = Dataset()
    record.DirectoryRecordType = "PATIENT"
    record.PatientID = dataset.PatientID
    dataset.DirectoryRecordSequence = [record]


def _report(dataset: Dataset) -> None:
    _lose_pixels(dataset)
    _become(dataset, MammographyCADSRStorage, "SR")
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [code("111017", "CAD Processing and Findings Summary")]


def _presentation_state(dataset: Dataset) -> None:
    _lose_pixels(dataset)
    _become(dataset, GrayscaleSoftcopyPresentationStateStorage, "PR")
    dataset.ContentLabel = "MARKS"


def _segmentation(dataset: Dataset) -> None:
    """Turn it into a segmentation with one bit per pixel (PS3.3 C.8.20.2)."""
    pixels = stored_pixels(dataset)
    marks = np.packbits(pixels > np.median(pixels), bitorder="little").tobytes()
    _become(dataset, SegmentationStorage, "SEG")
    dataset.SegmentationType = "BINARY"
    dataset.NumberOfFrames = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.add_new("PixelData", "OB", even(marks))


def _colour(dataset: Dataset) -> None:
    grey = stored_pixels(dataset).astype(np.uint8)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    colours = np.stack([grey, grey // 2, grey], axis=-1)
    dataset.add_new("PixelData", "OB", even(colours.tobytes()))


def _frames(dataset: Dataset, count: int) -> None:
    dataset.NumberOfFrames = count
    dataset["PixelData"].value = dataset.PixelData * count


def _tomosynthesis(dataset: Dataset) -> None:
    _become(dataset, BreastTomosynthesisImageStorage, "MG")
    dataset.ImageType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
    _frames(dataset, 3)


def _projections(dataset: Dataset) -> None:
    _become(dataset, BreastProjectionXRayImageStorageForPresentation, "MG")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "NONE"]
    _frames(dataset, 3)


def _slice_as_ct(dataset: Dataset) -> None:
    _become(dataset, CTImageStorage, "CT")
    dataset.ImageType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
    dataset.SliceThickness = "1"


def _for_processing(dataset: Dataset) -> None:
    _become(dataset, DigitalMammographyXRayImageStorageForProcessing, "MG")
    dataset.PresentationIntentType = "FOR PROCESSING"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]


def _chest(dataset: Dataset) -> None:
    _become(dataset, ComputedRadiographyImageStorage, "CR")
    _lose_mammography(dataset)
    _lose(dataset, "ConversionType")


def _ultrasound(dataset: Dataset) -> None:
    _become(dataset, UltrasoundImageStorage, "US")
    _lose(dataset, "PositionerType", "PresentationIntentType", "ConversionType")


def _screenshot(dataset: Dataset) -> None:
    _become(dataset, SecondaryCaptureImageStorage, "MG")
    dataset.ConversionType = "WSD"
    _lose(dataset, "PresentationIntentType")


def _specimen(dataset: Dataset) -> None:
    found = codes.cid4014.TissueSpecimenFromBreast
    dataset.ViewCodeSequence[0].CodeValue = found.value
    dataset.ViewCodeSequence[0].CodeMeaning = found.meaning
    dataset.ViewPosition = ""


def _scout(dataset: Dataset) -> None:
    """Turn it into a stereotactic unit's 512 x 512 view with contradictory pixel spacings."""
    pixels = cv2.resize(stored_pixels(dataset), (512, 512), interpolation=cv2.INTER_AREA)
    dataset.Rows = dataset.Columns = 512
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.ImagerPixelSpacing, dataset.PixelSpacing = ["0.1", "0.1"], ["0.975", "0.975"]


def _stereotactic(dataset: Dataset) -> None:
    """Turn it into one image of a stereotactic pair, as written by Siemens."""
    dataset.ImageType = ["DERIVED", "PRIMARY", "STEREO", dataset.ImageLaterality]


def _biopsy_by_name(dataset: Dataset) -> None:
    dataset.SeriesDescription = "Stanzbiopsie"


def _screen_as_mammogram(dataset: Dataset) -> None:
    """Turn it into a screen capture with the SOP class of the captured image."""
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]


def _test_object(dataset: Dataset) -> None:
    dataset.QualityControlImage = "YES"


def _modifier(name: str) -> Change:
    """Add a view modifier (PS3.16 CID 4015)."""
    found = getattr(codes.cid4015, name)

    def change(dataset: Dataset) -> None:
        view = dataset.ViewCodeSequence[0]
        view.ViewModifierCodeSequence = [code(found.value, found.meaning)]

    return change


def _implant(dataset: Dataset) -> None:
    dataset.BreastImplantPresent = "YES"


def _implant_displaced(dataset: Dataset) -> None:
    _implant(dataset)
    _modifier("ImplantDisplaced")(dataset)


def _burned_in(dataset: Dataset) -> None:
    dataset.BurnedInAnnotation = "YES"


def _no_laterality(dataset: Dataset) -> None:
    _lose(dataset, "ImageLaterality")


def _even_grey(level: float) -> Change:
    """Fill the image with one grey, without padding; varying sizes avoid most duplicates."""

    def change(dataset: Dataset) -> None:
        _lose(dataset, "PixelPaddingValue")
        dataset.Rows += int(dataset.InstanceNumber) % 64
        value = round(level * (2**dataset.BitsStored - 1))
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            value = 2**dataset.BitsStored - 1 - value
        shape = (dataset.Rows, dataset.Columns)
        dataset.PixelData = np.full(shape, value, "<u2").tobytes()

    return change


def _inverted(dataset: Dataset) -> None:
    """Invert the pixels and keep the header."""
    _lose(dataset, "PixelPaddingValue")
    stored = np.frombuffer(dataset.PixelData, "<u2")
    dataset.PixelData = (2**dataset.BitsStored - 1 - stored).astype("<u2").tobytes()


def _too_few_bits(dataset: Dataset) -> None:
    """Declare fewer bits than the pixels use."""
    dataset.BitsStored -= 2
    dataset.HighBit = dataset.BitsStored - 1


def _renamed(dataset: Dataset) -> None:
    """Store the same pixels under another identifier."""
    other = make_uid(dataset.SOPInstanceUID, "again")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = other


def _unchanged(_: Dataset) -> None:
    pass


def _made(change: Change) -> Maker:
    def make(dataset: Dataset) -> bytes:
        change(dataset)
        return saved(dataset)

    return make


def _kinds(reason: Reason, **changes: Change) -> dict[str, tuple[Reason, Maker]]:
    return {name.replace("_", "-"): (reason, _made(c)) for name, c in changes.items()}


UNWANTED: dict[str, tuple[Reason, Maker]] = {
    **_kinds(
        Reason.NO_PIXELS,
        dicomdir=_dicomdir,
        report=_report,
        presentation_state=_presentation_state,
        segmentation=_segmentation,
    ),
    **_kinds(Reason.UNSUPPORTED_IMAGE, colour=_colour, two_frames=lambda d: _frames(d, 2)),
    **_kinds(
        Reason.TOMOSYNTHESIS,
        tomosynthesis=_tomosynthesis,
        projections=_projections,
        slice_as_ct=_slice_as_ct,
    ),
    **_kinds(Reason.WRONG_MODALITY, chest_radiograph=_chest, ultrasound=_ultrasound),
    **_kinds(Reason.FOR_PROCESSING, for_processing=_for_processing),
    **_kinds(
        Reason.SECONDARY_CAPTURE,
        screenshot=_screenshot,
        screen_as_mammogram=_screen_as_mammogram,
    ),
    **_kinds(Reason.QUALITY_CONTROL, test_object=_test_object),
    **_kinds(Reason.SPECIMEN, specimen=_specimen),
    **_kinds(
        Reason.BIOPSY,
        biopsy_scout=_scout,
        stereotactic=_stereotactic,
        biopsy_by_name=_biopsy_by_name,
    ),
    **_kinds(Reason.SPOT, spot=_modifier("SpotCompression")),
    **_kinds(Reason.MAGNIFICATION, magnification=_modifier("Magnification")),
    **_kinds(Reason.IMPLANT, implant=_implant),
    **_kinds(Reason.IMPLANT_DISPLACED, implant_displaced=_implant_displaced),
    **_kinds(Reason.BURNED_IN, burned_in=_burned_in),
    **_kinds(Reason.NO_LATERALITY, no_side=_no_laterality),
    **_kinds(Reason.CONTRADICTION, too_few_bits=_too_few_bits),
    **_kinds(Reason.INVERTED, inverted=_inverted),
    **_kinds(Reason.NO_BREAST, black=_even_grey(0.0), flat=_even_grey(0.4)),
}
DUPLICATES: dict[str, tuple[Reason, Maker]] = _kinds(
    Reason.DUPLICATE_IMAGE, copy=_unchanged, same_pixels=_renamed
)
"""Duplicates of another image in the folder, with its patient and label."""
