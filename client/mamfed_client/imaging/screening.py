"""Decide from the DICOM header whether an image is a screening mammogram.

:func:`check_screening` runs :data:`SCREENING_CHECKS` in order. Each check rejects one kind of image
(tomosynthesis, specimen, spot compression, ...) for its own reason. The list is at the end of this
file. The view itself is not checked: ML, XCCL or an unknown view is accepted beside CC and MLO.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from pydicom import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from mamfed_client.imaging.dicom_attributes import (
    VIEW_CODES,
    VIEWS,
    magnification,
    spacings_disagree,
)
from mamfed_client.imaging.dicom_header import codes, items, numbers, text, texts, words
from mamfed_client.imaging.mammogram import Facts
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.imaging.screening_vocabulary import (
    BIOPSY_TYPES,
    CAPTURE_TYPES,
    CAPTURED,
    CODES,
    MAMMOGRAPHIC_CLASSES,
    RADIOGRAPHIC_CLASSES,
    SCOUT_SIDES,
    STEMS,
    SYNTHESIZED_TYPES,
    SYNTHESIZED_WORDS,
    TEST_OBJECTS,
    TEXTS,
    TOMOSYNTHESIS_CLASSES,
    TOMOSYNTHESIS_TYPES,
    WORDS,
)

CONTACT_MAGNIFICATION = 1.4
"""Upper limit of the magnification factor in contact mammography.

A breast on the table is magnified 1.0 to 1.1 times, on a magnification stand 1.5 to 2 times.
"""


def check_screening(dataset: Dataset, facts: Facts, allow: frozenset[Reason]) -> None:
    """Reject a DICOM image that is not a screening mammogram.

    Args:
        dataset: The header.
        facts: Metadata extracted from the header.
        allow: Reasons to ignore, such as secondary capture for data sets stored that way.

    Raises:
        FileRejected: A check failed; the first that is not in ``allow`` is reported. The detail
            never quotes free text from the header.
    """
    for reason, check in SCREENING_CHECKS:
        if reason not in allow and (detail := check(dataset, facts)):
            raise FileRejected(reason, detail)


def is_tomosynthesis(dataset: Dataset) -> bool:
    """Return whether the image holds tomosynthesis slices or projections, in one or more frames."""
    return bool(_tomosynthesis(dataset, Facts()))


def _tomosynthesis(dataset: Dataset, _: Facts) -> str:
    image_type = {part.upper() for part in texts(dataset, "ImageType")}
    description = words(text(dataset, "SeriesDescription"))
    is_stack = (numbers(dataset, "NumberOfFrames") or (1.0,))[0] > 1
    synthesized = image_type & SYNTHESIZED_TYPES or _first_word(description, SYNTHESIZED_WORDS)
    if synthesized and not is_stack:
        return ""
    if text(dataset, "SOPClassUID") in TOMOSYNTHESIS_CLASSES:
        return "(0008,0016) SOP Class is of breast tomosynthesis"
    if image_type & TOMOSYNTHESIS_TYPES:
        return "(0008,0008) Image Type says tomosynthesis"
    if _first_word(description, WORDS[Reason.TOMOSYNTHESIS]):
        return "(0008,103E) Series Description says tomosynthesis"
    return _breast_as_ct(dataset)


def _breast_as_ct(dataset: Dataset) -> str:
    """Reject breast slices stored as CT, as older Hologic units did."""
    is_ct = text(dataset, "SOPClassUID") == CTImageStorage
    of_breast = (
        text(dataset, "Modality").upper() == "MG"
        or text(dataset, "BodyPartExamined").upper() == "BREAST"
        or text(dataset, "PositionerType").upper().startswith("MAMMOGRAPHIC")
    )
    return "breast slices stored as CT" if is_ct and of_breast else ""


def _wrong_modality(dataset: Dataset, _: Facts) -> str:
    """Reject modalities other than MG; Modality may be absent, as research exports drop it."""
    modality = text(dataset, "Modality").upper()
    sop_class = UID(text(dataset, "SOPClassUID"))
    if modality not in ("", "MG"):
        return "(0008,0060) Modality is not MG"
    is_foreign = "Image Storage" in sop_class.name and not _is_captured(sop_class)
    if is_foreign and sop_class not in RADIOGRAPHIC_CLASSES:
        return "(0008,0016) SOP Class is of another modality"
    if modality or sop_class in MAMMOGRAPHIC_CLASSES or _is_of_breast_view(dataset):
        return ""
    return "(0008,0060) Modality is missing and no other sign of MG"


def _is_of_breast_view(dataset: Dataset) -> bool:
    """Return whether the header has a mammographic positioner, or both a breast and a view."""
    if text(dataset, "PositionerType").upper().startswith("MAMMOGRAPHIC"):
        return True
    organs = {text(dataset, key).upper() for key in ("BodyPartExamined", "OrganExposed")}
    has_view = text(dataset, "ViewPosition").upper() in VIEWS or bool(
        codes(dataset, "ViewCodeSequence") & VIEW_CODES.keys()
    )
    return has_view and ("BREAST" in organs or "BreastImplantPresent" in dataset)


def _is_captured(sop_class: str) -> bool:
    return f"{sop_class}.".startswith(f"{SecondaryCaptureImageStorage}.")


def _for_processing(dataset: Dataset, _: Facts) -> str:
    intent = text(dataset, "PresentationIntentType").upper()
    sop_class = text(dataset, "SOPClassUID")
    if intent == "FOR PROCESSING":
        return "(0008,0068) Presentation Intent Type is FOR PROCESSING"
    is_raw = sop_class == DigitalMammographyXRayImageStorageForProcessing
    return "(0008,0016) SOP Class is For Processing" if is_raw else ""


def _secondary_capture(dataset: Dataset, _: Facts) -> str:
    """Reject screenshots and scanned documents.

    The SOP class takes precedence, because GE writes Conversion Type WSD into every Digital
    Mammography object. For those SOP classes, Conversion Type counts only if Image Type is
    SECONDARY as well.
    """
    sop_class = text(dataset, "SOPClassUID")
    if _is_captured(sop_class):
        return "(0008,0016) SOP Class is Secondary Capture"
    image_type = {part.upper() for part in texts(dataset, "ImageType")}
    if image_type & CAPTURE_TYPES:
        return "(0008,0008) Image Type says screen"
    is_captured = text(dataset, "ConversionType").upper() in CAPTURED
    if sop_class in MAMMOGRAPHIC_CLASSES:
        both = is_captured and "SECONDARY" in image_type
        return "(0008,0064) Conversion Type and (0008,0008) Image Type say screen" if both else ""
    return "(0008,0064) Conversion Type is of a screen or a document" if is_captured else ""


def _quality_control(dataset: Dataset, _: Facts) -> str:
    """Reject images of test objects and calibrations (PS3.3 C.7.6.1 and C.8.7.3.1)."""
    for keyword, name in (
        ("QualityControlImage", "(0028,0300) Quality Control Image"),
        ("CalibrationImage", "(0050,0004) Calibration Image"),
    ):
        if text(dataset, keyword).upper() == "YES":
            return f"{name} is YES"
    for keyword in TEXTS:
        if word := _first_word(words(text(dataset, keyword)), TEST_OBJECTS):
            return f"{keyword} says {word}"
    return ""


def _specimen(dataset: Dataset, _: Facts) -> str:
    if items(dataset, "SpecimenDescriptionSequence"):
        return "(0040,0560) Specimen Description Sequence"
    return _code_or_word(dataset, Reason.SPECIMEN)


def _biopsy(dataset: Dataset, _: Facts) -> str:
    if any(BIOPSY_TYPES.fullmatch(part.upper()) for part in texts(dataset, "ImageType")):
        return "(0008,0008) Image Type is of a biopsy"
    if items(dataset, "BiopsyTargetSequence"):
        return "(0018,2041) Biopsy Target Sequence"
    sides = numbers(dataset, "Rows") + numbers(dataset, "Columns")
    is_scout = len(set(sides)) == 1 and sides[0] in SCOUT_SIDES
    if is_scout and spacings_disagree(dataset):
        return f"a scout of {sides[0]:.0f} pixels square whose two spacings disagree"
    return _code_or_word(dataset, Reason.BIOPSY)


def _spot(dataset: Dataset, _: Facts) -> str:
    """Reject spot compression; a Partial View merely means a breast larger than the detector."""
    if _first_word(words(text(dataset, "PaddleDescription")), WORDS[Reason.SPOT]):
        return "(0018,11A4) Paddle Description says spot"
    return _code_or_word(dataset, Reason.SPOT)


def _magnified(dataset: Dataset, _: Facts) -> str:
    factor = magnification(dataset)
    if factor > CONTACT_MAGNIFICATION:
        return f"(0018,1114) Estimated Radiographic Magnification Factor is {factor:.3g}"
    return _code_or_word(dataset, Reason.MAGNIFICATION)


def _implant_displaced(dataset: Dataset, _: Facts) -> str:
    return _code_or_word(dataset, Reason.IMPLANT_DISPLACED)


def _implant(dataset: Dataset, facts: Facts) -> str:
    """Reject implants in view; displaced implants also count as present (PS3.3 C.8.11.7)."""
    present = text(dataset, "BreastImplantPresent").upper() == "YES"
    in_view = present and not _implant_displaced(dataset, facts)
    return "(0028,1300) Breast Implant Present is YES" if in_view else ""


def _burned_in(dataset: Dataset, _: Facts) -> str:
    is_burned_in = text(dataset, "BurnedInAnnotation").upper() == "YES"
    return "(0028,0301) Burned In Annotation is YES" if is_burned_in else ""


def _no_laterality(_: Dataset, facts: Facts) -> str:
    return "" if facts.laterality else "neither the header nor the file name tells left or right"


def _code_or_word(dataset: Dataset, reason: Reason) -> str:
    """Search view and modifier codes for a reason's codes, then text elements for its words."""
    views = items(dataset, "ViewCodeSequence")
    holders = (dataset, *views)  # modifiers belong in the view's item, but some files differ
    coded = codes(dataset, "ViewCodeSequence").union(
        *(codes(holder, "ViewModifierCodeSequence") for holder in holders)
    )
    if coded & CODES.get(reason, frozenset()):
        return "(0054,0222) View Modifier or (0054,0220) View Code says so"
    modifiers = [m for holder in holders for m in items(holder, "ViewModifierCodeSequence")]
    meanings = [text(item, "CodeMeaning") for item in (*views, *modifiers)]
    for source, content in (
        *((key, text(dataset, key)) for key in TEXTS),
        ("code", " ".join(meanings)),
    ):
        if word := _first_word(words(content), WORDS[reason]) or _stem(content, reason):
            return f"{source} says {word}"
    return ""


def _stem(content: str, reason: Reason) -> str:
    plain = unicodedata.normalize("NFKD", content).encode("ascii", "ignore").decode().lower()
    return next((stem for stem in STEMS.get(reason, ()) if stem in plain), "")


def _first_word(spaced_words: str, candidates: tuple[str, ...]) -> str:
    return next((word for word in candidates if f" {word} " in spaced_words), "")


SCREENING_CHECKS: tuple[tuple[Reason, Callable[[Dataset, Facts], str]], ...] = (
    (Reason.TOMOSYNTHESIS, _tomosynthesis),
    (Reason.SECONDARY_CAPTURE, _secondary_capture),
    (Reason.WRONG_MODALITY, _wrong_modality),
    (Reason.FOR_PROCESSING, _for_processing),
    (Reason.QUALITY_CONTROL, _quality_control),
    (Reason.SPECIMEN, _specimen),
    (Reason.BIOPSY, _biopsy),
    (Reason.SPOT, _spot),
    (Reason.MAGNIFICATION, _magnified),
    (Reason.IMPLANT_DISPLACED, _implant_displaced),
    (Reason.IMPLANT, _implant),
    (Reason.BURNED_IN, _burned_in),
    (Reason.NO_LATERALITY, _no_laterality),
)
"""Checks in order. Tomosynthesis and captures come first: when stored as CT or RG they would
otherwise be reported merely as the wrong modality."""
