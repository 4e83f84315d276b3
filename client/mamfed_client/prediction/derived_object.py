"""What the DICOM objects that predict writes share: their source's header, names and maker.

An object repeats the elements of its source's header that
:mod:`mamfed_client.imaging.derived_header` lists. Its UIDs are derived from its whole content but
not from the time of writing: an archive recognises an identical object, and never confuses it with
a different one. Each object is its own series, because viewers open only the first of a series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import Any, NamedTuple

from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from mamfed_client.imaging.derived_header import REFERRED, REPEATED
from mamfed_client.imaging.mammogram import Facts, Laterality
from mamfed_client.prediction.source_header import Content, SourceError, sound_header
from mamfed_common import __version__

EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Elements that must be present but may be empty (Type 2: PS3.3 C.7.1.1, C.7.2.1)."""
SERIES_NUMBERS = range(10_000, 1_000_000_000)
"""Well above the images' series numbers; every viewer can show nine digits."""
MOMENTS = (
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"),
    *("PresentationCreationDate", "PresentationCreationTime"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
"""When an object was written, which is not part of its content."""
UNNAMED = "2.25.0"
"""Placeholder for a UID that is not known yet."""
LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
ROOT_OF_FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator")

SIDES: dict[Laterality | None, Code] = {"L": codes.SCT.Left, "R": codes.SCT.Right}


class Origin(NamedTuple):
    """The model and threshold behind an object.

    Attributes:
        weights_sha256: SHA-256 of the weights.
        plan_sha256: SHA-256 of the training plan.
        threshold: Lowest probability at which a pixel is marked.
    """

    weights_sha256: str
    plan_sha256: str
    threshold: float

    @property
    def parameters(self) -> dict[str, str]:
        """The model, as parameters of the algorithm."""
        return {
            "weights_sha256": self.weights_sha256,
            "plan_sha256": self.plan_sha256,
            "threshold": f"{self.threshold:g}",
            "use": "research only",
        }


class Encoded(NamedTuple):
    """An encoded object.

    Attributes:
        data: The DICOM file.
        left_out: Reasons why elements of the source's header were not repeated, by keyword.
    """

    data: bytes
    left_out: dict[str, str]


def encode(
    source: Mapping[str, Content],
    build: Callable[[Dataset], Dataset],
    finish: Callable[[Dataset, Dataset], None],
) -> Encoded:
    """Build an object and encode it as a DICOM file.

    Args:
        source: The result of ``Decoder.source`` for the source image.
        build: Builds the object from the sound elements of the source's header.
        finish: Completes the object from the same elements, names it (:func:`name`).

    Raises:
        SourceError: The source's header lacks required elements.
    """
    try:
        with config.disable_value_validation():  # its warnings would quote patient data
            header = sound_header(source)
            built = build(header.elements)
            finish(header.elements, built)
            return Encoded(written(built), header.left_out)
    except KeyError:
        reason = "the header's SOPClassUID is none that DICOM defines for images"
    except (ValueError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__} while making one of its header"
    raise SourceError(reason)


def series(kind: str, facts: Facts, origin: Origin) -> dict[str, Any]:
    """Return the arguments of highdicom that say which series an object is and who made it.

    Args:
        kind: What the object is, in words; empty for a segmentation.
        facts: Metadata of the source image.
        origin: The model and threshold.
    """
    side = " ".join(word for word in (facts.laterality, facts.view) if word)
    words = f"mamfed{' ' if kind else ''}{kind} (research use only): {side}".rstrip(": ")
    return {
        "series_instance_uid": UNNAMED,
        "series_number": SERIES_NUMBERS.start,
        "series_description": words[:64],
        "sop_instance_uid": UNNAMED,
        "instance_number": 1,
        "manufacturer": "mamfed",
        "manufacturer_model_name": "mamfed-client predict",
        "software_versions": __version__,
        "device_serial_number": origin.weights_sha256[:16],
    }


def source_image(header: Dataset, rows: int, columns: int) -> Dataset:
    """Build the source header that highdicom needs, without names, as its warnings quote them.

    The elements that highdicom would copy are repeated afterwards from our own table.
    """
    image = Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, "")
    for keyword in (*REFERRED, "StudyInstanceUID"):
        if keyword in header:
            image[keyword] = header[keyword]
    image.Modality = "MG"
    image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
    return image


def repeat(header: Dataset, built: Dataset) -> None:
    """Copy the elements of a source's header that every object repeats."""
    for keyword in REPEATED:
        if keyword in header:
            built[keyword] = header[keyword]


def drop_image_elements(built: Dataset) -> None:
    """Remove what belongs to images only from an object without pixels or planes."""
    for keyword in (*ROOT_OF_FRAME, "LossyImageCompression", *LOSSY):
        built.pop(keyword, None)


def check_lossy(built: Dataset) -> None:
    """State whether an image is from lossily compressed pixels (Type 1: C.7.6.1.1.5, C.8.20.2)."""
    if built.get("LossyImageCompression") != "01":
        built.LossyImageCompression = "00"
        for keyword in LOSSY:
            built.pop(keyword, None)


def name(built: Dataset, *others: Dataset) -> None:
    """Derive an object's UIDs and series number from its content.

    Args:
        built: The object.
        others: Items with the UID of a Dimension Organization, which highdicom draws at random.
    """
    for item in others:
        item.DimensionOrganizationUID = UNNAMED
    for item in built.get("ContributingEquipmentSequence") or ():
        item.pop("ContributionDateTime", None)
    moments = [built[keyword] for keyword in MOMENTS if keyword in built]
    for element in moments:
        del built[element.tag]
    content = hashlib.sha256(written(built)).hexdigest()
    for element in moments:
        built.add(element)
    for item in others:
        item.DimensionOrganizationUID = generate_uid(entropy_srcs=["dimensions", content])
    built.SeriesInstanceUID = generate_uid(entropy_srcs=["series", content])
    built.SOPInstanceUID = generate_uid(entropy_srcs=["instance", content])
    built.file_meta.MediaStorageSOPInstanceUID = built.SOPInstanceUID
    built.SeriesNumber = SERIES_NUMBERS[int(content[:16], 16) % len(SERIES_NUMBERS)]


def stamp(built: Dataset, header: Dataset, *kinds: str) -> None:
    """Write the time of creation, and of what ``kinds`` name, in the time zone of the source."""
    now = datetime.now(timezone_of(header))
    for kind in ("InstanceCreation", *kinds):
        setattr(built, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(built, f"{kind}Time", now.strftime("%H%M%S.%f"))


def timezone_of(header: Dataset) -> timezone | None:
    """Return the time zone of all times in an object (PS3.3 C.12.1); None if there is none."""
    offset = header.get("TimezoneOffsetFromUTC", "")
    if not offset:
        return None
    hours, minutes = int(offset[:3]), int(offset[0] + offset[3:])
    return timezone(timedelta(hours=hours, minutes=minutes))


def written(built: Dataset) -> bytes:
    """Return an object as the bytes of a file."""
    file = BytesIO()
    built.save_as(file)
    return file.getvalue()


def item_of(code: Code) -> Dataset:
    """Build the item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def marked_words(lesions: int, threshold: float) -> str:
    """Describe in at most 64 characters what is marked, or that nothing is."""
    found = "Nothing" if not lesions else f"{lesions} region{'s' if lesions > 1 else ''}"
    return f"{found} marked at probability {threshold:g} or more"[:64]
