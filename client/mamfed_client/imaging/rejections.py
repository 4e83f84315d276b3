"""Reasons for rejecting a single row or file; the rest of the data set is still used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mamfed_common.errors import DataError


class Reason(StrEnum):
    """Why a row or file cannot be used; the values appear in reports and files."""

    # Rows of the table
    WRONG_CELLS = "wrong number of cells"
    """The row has more or fewer cells than the header."""
    NO_PATIENT = "no patient"
    """The patient is unknown, so the patient-wise split cannot place the image."""
    BAD_LABEL = "bad label"
    """The pathology or BI-RADS cell has an unknown value."""
    BAD_LATERALITY = "bad laterality"
    BAD_SPACING = "bad spacing"
    """The spacing is not a positive number."""
    BAD_REVIEWED = "bad reviewed"
    """The cell is neither yes nor no."""
    PATH_LEAVES_FOLDER = "path leaves the folder"
    """The path is absolute or contains ``..``."""
    MISSING_IMAGE = "missing image"
    OTHER_IMAGE = "table and file disagree"
    """The table disagrees with the file on side and view, so the row may be for another image."""
    DUPLICATE_IMAGE = "duplicate image"
    """Another row has the same file or the same pixels."""

    # Image files
    UNREADABLE_IMAGE = "unreadable image"
    """The file is corrupt or its format is unknown."""
    TRUNCATED = "truncated"
    """The file holds fewer pixels than its header declares."""
    TOO_LARGE = "too large"
    """The image has more pixels than any mammogram, or decoding exceeds the memory limit."""
    TOO_SLOW = "decoding took too long"
    DECODER_CRASHED = "decoder crashed"
    """The file crashed its decoding process; a new process decodes the other files."""
    CONTRADICTION = "header contradicts pixels"
    """The pixels contradict the header on sign, bit depth, byte order or size."""
    INVERTED = "inverted grey levels"
    """Air is bright once the header and format conventions have been applied."""
    UNSUPPORTED_SYNTAX = "no decoder"
    """The DICOM transfer syntax is not supported."""
    UNSUPPORTED_IMAGE = "unsupported image"
    """A valid file of an unsupported kind, such as colour, multi-page or an unusual bit depth."""

    # Valid DICOM files that are not screening mammograms
    NO_PIXELS = "no image in the file"
    """A DICOMDIR, report, segmentation or other object without a mammogram."""
    WRONG_MODALITY = "wrong modality"
    TOMOSYNTHESIS = "tomosynthesis"
    """A stack of slices or projections; synthesized 2D images are accepted."""
    FOR_PROCESSING = "for processing"
    """Raw detector values, not intended for display."""
    SECONDARY_CAPTURE = "secondary capture"
    """A screenshot or scan; accepted for data sets known to be stored this way."""
    QUALITY_CONTROL = "quality control image"
    """An image of a test object, or a calibration image."""
    SPECIMEN = "specimen"
    BIOPSY = "biopsy or stereotactic image"
    SPOT = "spot compression"
    MAGNIFICATION = "magnification"
    IMPLANT = "implant in view"
    IMPLANT_DISPLACED = "implant displaced"
    BURNED_IN = "burned-in annotation"
    NO_LATERALITY = "no laterality"

    # Annotations
    MISSING_MASK = "missing mask"
    UNREADABLE_MASK = "unreadable mask"
    MASK_SIZE = "mask of another size"
    """The aspect ratio differs from the image's; masks that differ only in scale are resampled."""
    UNKNOWN_CLASS = "class not known"
    """The annotation marks several classes, and it is unknown which are malignant."""
    EMPTY_MASK = "empty mask"
    """The row is malignant but its annotation marks nothing."""
    IMPLAUSIBLE_IMAGE = "implausible image"
    """The picture cannot be a mammogram, such as an icon or a breast of uniform grey."""
    IMPLAUSIBLE_MASK = "implausible mask"
    """The mask cannot be a finding: it covers the breast, the background or nearly everything."""
    DOUBTFUL_MASK = "doubtful mask"
    """The mask needs review before it is used for training."""
    NO_BREAST = "no breast found"


JUDGED = frozenset(
    {
        Reason.UNKNOWN_CLASS,
        Reason.IMPLAUSIBLE_IMAGE,
        Reason.IMPLAUSIBLE_MASK,
        Reason.DOUBTFUL_MASK,
    }
)
"""Reasons that reject files although they exist and can be read."""


ALLOWABLE = (
    Reason.WRONG_MODALITY,
    Reason.TOMOSYNTHESIS,
    Reason.FOR_PROCESSING,
    Reason.SECONDARY_CAPTURE,
    Reason.QUALITY_CONTROL,
    Reason.SPECIMEN,
    Reason.BIOPSY,
    Reason.SPOT,
    Reason.MAGNIFICATION,
    Reason.IMPLANT,
    Reason.IMPLANT_DISPLACED,
    Reason.BURNED_IN,
    Reason.NO_LATERALITY,
)
"""Reasons that a user may allow: those of ``screening.SCREENING_CHECKS``."""


class FileRejected(DataError):
    """A row or file cannot be used.

    Attributes:
        reason: The category, as counted in reports.
        detail: What was found, in words; never identifies a patient.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Build a one-line message from the reason and the detail."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected row of the site's table or folder listing.

    Attributes:
        row_number: Line in the table as a text editor counts (the header is line 1), or position
            in the listing of a folder without a table.
        image: The site's own name for the image; never leaves the site.
        reason: The category, as counted in reports.
        detail: What was found, in words.
    """

    row_number: int
    image: str
    reason: Reason
    detail: str


def rejection(row_number: int, image: str, error: FileRejected) -> Rejection:
    """Return the rejection of a row that failed with ``error``."""
    return Rejection(row_number, image, error.reason, error.detail)
