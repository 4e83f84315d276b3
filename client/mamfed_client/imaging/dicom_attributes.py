"""Extract a mammogram's metadata from the various places where vendors and exporters store it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from types import MappingProxyType

from pydicom import Dataset

from mamfed_client.imaging.dicom_header import codes, frame_groups, items, numbers, text, texts
from mamfed_client.imaging.mammogram import Facts, Laterality

FILE_NAME = "file name"

SIDES: MappingProxyType[str, Laterality] = MappingProxyType(
    {"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}
)
SIDE_CODES: MappingProxyType[str, Laterality] = MappingProxyType(
    {"7771000": "L", "G-A101": "L", "24028007": "R", "G-A100": "R"}
)
"""PS3.16 CID 244, as SNOMED CT and SRT codes."""

VIEW_CODES = MappingProxyType(
    {
        **dict.fromkeys(("399162004", "R-10242"), "CC"),
        **dict.fromkeys(("399368009", "R-10226"), "MLO"),
        **dict.fromkeys(("399260004", "R-10224"), "ML"),
        **dict.fromkeys(("399352003", "R-10228"), "LM"),
        **dict.fromkeys(("399099002", "R-10230"), "LMO"),
        **dict.fromkeys(("399196006", "R-10244"), "FB"),
        **dict.fromkeys(("399188001", "R-102D0"), "SIO"),
        **dict.fromkeys(("441555000", "R-40AAA"), "ISO"),
        **dict.fromkeys(("399265009", "R-102CF"), "XCC"),
        **dict.fromkeys(("399192008", "R-1024A"), "XCCL"),
        **dict.fromkeys(("399101009", "R-1024B"), "XCCM"),
    }
)
"""PS3.16 CID 4014, as SNOMED CT and SRT codes, with the ACR abbreviations."""
VIEWS = frozenset(VIEW_CODES.values())

CBIS_PATIENT = re.compile(
    r"(?:Mass|Calc)-(?:Training|Test)_(?P<patient>P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)",
    re.I,
)
"""CBIS-DDSM stores an image name in the Patient ID element."""

MAKERS = MappingProxyType(
    {
        "Hologic": ("hologic", "lorad", "selenia", "dimensions", "3dimensions"),
        "GE": ("ge", "senographe", "senoclaire", "pristina"),
        "Siemens": ("siemens", "mammomat"),
        "Fujifilm": ("fujifilm", "fuji", "amulet"),
        "Philips": ("philips", "sectra", "microdose"),
        "IMS Giotto": ("ims", "giotto"),
        "Planmed": ("planmed",),
        "Agfa": ("agfa",),
        "Carestream": ("carestream", "kodak"),
        "Konica Minolta": ("konica",),
        "Metaltronica": ("metaltronica",),
        "Fischer": ("fischer", "senoscan"),
    }
)
"""Words in (0008,0070) Manufacturer or (0008,1090) Model Name; acquired brands count as the buyer.
"""
MAX_NAME = 64

BIRADS = re.compile(r"(?:ACR\W?)?BI-?RADS\W*(?:CATEGORY\W*)?([0-6]|4[ABC])", re.I)

SPACING_RANGE_MM = (0.01, 1.0)
SPACING_TOLERANCE = 0.05


def read_facts(dataset: Dataset, file_name: str) -> Facts:
    """Extract the metadata of a header; an element that makes no sense counts as absent.

    Args:
        dataset: The header.
        file_name: The file's name without folders.
    """
    laterality, laterality_source = next(_lateralities(dataset, file_name), (None, ""))
    view, view_source = next(_views(dataset, file_name), (None, ""))
    return Facts(
        laterality=laterality,
        laterality_source=laterality_source,
        view=view,
        view_source=view_source,
        spacing_mm=_spacing_mm(dataset),
        vendor=_vendor(dataset),
        model=_name(text(dataset, "ManufacturerModelName")),
        birads=_birads(dataset),
        patient=_patient(dataset),
        instance=text(dataset, "SOPInstanceUID"),
    )


def _patient(dataset: Dataset) -> str:
    """Return Patient ID (0010,0020), which is the same in all images of a patient."""
    patient = text(dataset, "PatientID")
    cbis = CBIS_PATIENT.match(patient)
    return cbis["patient"].upper() if cbis else patient


def _lateralities(dataset: Dataset, name: str) -> Iterator[tuple[Laterality | None, str]]:
    """Yield the laterality from each source that has it, best first.

    Image Laterality B means that both breasts are in view, so it overrides the other sources (PS3.3
    C.8.11.7). Patient Orientation is ignored: exports that mirror the image leave it unchanged.
    """
    for keyword in ("ImageLaterality", "Laterality"):
        side = text(dataset, keyword).upper()
        if side == "B":
            yield None, ""
        if side in SIDES:
            yield SIDES[side], keyword
    for anatomy in frame_groups(dataset, "FrameAnatomySequence"):
        side = text(anatomy, "FrameLaterality").upper()
        if side in SIDES:
            yield SIDES[side], "FrameLaterality"
    sides = {SIDE_CODES[code] for code in _region_modifiers(dataset) & SIDE_CODES.keys()}
    if len(sides) == 1:
        yield sides.pop(), "AnatomicRegionModifierSequence"
    if cbis := CBIS_PATIENT.match(text(dataset, "PatientID")):
        yield SIDES[cbis["side"].upper()], "PatientID"
    sides, _ = _name_tokens(name)
    if len(sides) == 1:
        yield sides.pop(), FILE_NAME


def _region_modifiers(dataset: Dataset) -> frozenset[str]:
    holders = (dataset, *frame_groups(dataset, "FrameAnatomySequence"))
    regions = [item for holder in holders for item in items(holder, "AnatomicRegionSequence")]
    modifiers = (codes(region, "AnatomicRegionModifierSequence") for region in regions)
    return frozenset[str]().union(*modifiers)


def _views(dataset: Dataset, name: str) -> Iterator[tuple[str, str]]:
    """Yield the view from each source that has it, best first; CBIS has it in the third."""
    view = text(dataset, "ViewPosition").upper()
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", view):  # a CS (PS3.5 6.2); anything else is free text
        yield view, "ViewPosition"
    for code in codes(dataset, "ViewCodeSequence") & VIEW_CODES.keys():
        yield VIEW_CODES[code], "ViewCodeSequence"
    for orientation in texts(dataset, "PatientOrientation"):
        if orientation.upper() in VIEWS:
            yield orientation.upper(), "PatientOrientation"
    if cbis := CBIS_PATIENT.match(text(dataset, "PatientID")):
        yield cbis["view"].upper(), "PatientID"
    _, views = _name_tokens(name)
    if len(views) == 1:
        yield views.pop(), FILE_NAME


def _name_tokens(name: str) -> tuple[set[Laterality], set[str]]:
    """Return the sides and views in a file name such as ``_R_CC_``, ``LEFT_MLO`` or ``RMLO``.

    A lone L or R counts only beside a view, because it may also be an initial.
    """
    tokens = re.split(r"[^A-Z0-9]+", PurePath(name).stem.upper())
    joined = [match for token in tokens if (match := re.fullmatch(r"([LR])(\w+)", token))]
    joined = [match for match in joined if match[2] in VIEWS]
    views = {token for token in tokens if token in VIEWS} | {match[2] for match in joined}
    sides = {SIDES[token] for token in tokens if token in SIDES and (len(token) > 1 or views)}
    return sides | {SIDES[match[1]] for match in joined}, views


def _spacing_mm(dataset: Dataset) -> float | None:
    """Return the pixel spacing on the detector or film in mm.

    It is Imager Pixel Spacing (0018,1164), else Pixel Spacing (0028,0030), else Nominal Scanned
    Pixel Spacing (0018,2010) of a film. Pixel Spacing calibrated by GEOMETRY applies in the breast,
    so it is multiplied by the magnification (PS3.3 10.7.1.1).

    Returns:
        None if pixels are not square, the first two contradict each other, or the value is outside
        ``SPACING_RANGE_MM``.
    """
    if spacings_disagree(dataset):
        return None
    for keyword in ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"):
        spacing = numbers(dataset, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            if not _is_near(spacing[0] / spacing[1], 1):
                return None
            in_breast = keyword == "PixelSpacing" and (
                text(dataset, "PixelSpacingCalibrationType").upper() == "GEOMETRY"
            )
            spacing_mm = spacing[0] * (magnification(dataset) if in_breast else 1)
            low, high = SPACING_RANGE_MM
            return spacing_mm if low <= spacing_mm <= high else None
    return None


def spacings_disagree(dataset: Dataset) -> bool:
    """Return whether Pixel Spacing contradicts Imager Pixel Spacing, magnified or not.

    For example, the scout views of a stereotactic unit say 0.975 mm and 0.1 mm.
    """
    on_detector = numbers(dataset, "ImagerPixelSpacing")[:1]
    calibrated = numbers(dataset, "PixelSpacing")[:1]
    if not on_detector or not calibrated or min(on_detector + calibrated) <= 0:
        return False
    ratio = on_detector[0] / calibrated[0]
    return not (_is_near(ratio, 1) or _is_near(ratio, magnification(dataset)))


def magnification(dataset: Dataset) -> float:
    """Return Estimated Radiographic Magnification Factor (0018,1114), or 1 if it is absent."""
    factor = next(iter(numbers(dataset, "EstimatedRadiographicMagnificationFactor")), 1.0)
    return factor if factor > 0 else 1.0


def _is_near(ratio: float, expected: float) -> bool:
    return abs(ratio / expected - 1) <= SPACING_TOLERANCE


def _vendor(dataset: Dataset) -> str | None:
    """Return the common name of a known maker, else Manufacturer as the file spells it."""
    manufacturer = text(dataset, "Manufacturer")
    name = manufacturer or text(dataset, "ManufacturerModelName")
    found_words = set(re.findall(r"\w+", name.lower()))
    for maker, maker_words in MAKERS.items():
        if found_words.intersection(maker_words):
            return maker
    return _name(manufacturer)


def _name(spelling: str) -> str | None:
    """Return the printable characters of a name, at most 64 as in an LO (PS3.5 6.2)."""
    printable = "".join(letter for letter in spelling if letter.isprintable())
    return printable[:MAX_NAME].strip() or None


def _birads(dataset: Dataset) -> str | None:
    """Return the assessment, such as ``4a``, if the image comment consists of nothing else."""
    match = BIRADS.fullmatch(text(dataset, "ImageComments"))
    return match[1].lower() if match else None
