"""One bad row or file: refused by name, while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mamfed_common.errors import DataError


class Reason(StrEnum):
    """Why a row or a file cannot be used."""

    # The row
    WRONG_CELLS = "wrong number of cells"
    """The row has more or fewer cells than the header."""
    NO_PATIENT = "no patient"
    """No patient is named, so the image cannot be kept on one side of the split."""
    BAD_LABEL = "bad label"
    """The pathology or BI-RADS cell holds something unknown."""
    BAD_LATERALITY = "bad laterality"
    BAD_SPACING = "bad spacing"
    """The spacing is not a positive number."""
    BAD_REVIEWED = "bad reviewed"
    """The cell says neither yes nor no."""
    PATH_LEAVES_FOLDER = "path leaves the folder"
    """An absolute path, or one with ``..``."""
    MISSING_IMAGE = "missing image"
    OTHER_IMAGE = "table and file disagree"
    """The table names another side and another view: the row may be about another image."""
    DUPLICATE_IMAGE = "duplicate image"
    """Another row has the same file or the same pixels."""

    # The file
    UNREADABLE_IMAGE = "unreadable image"
    """Broken, or of a format that is not known."""
    TRUNCATED = "truncated"
    """It holds fewer pixels than its header says."""
    TOO_LARGE = "too large"
    """More pixels than any mammogram has, or more memory than decoding may take."""
    TOO_SLOW = "decoding took too long"
    DECODER_CRASHED = "decoder crashed"
    """The file ended the process that decoded it; the rest goes on in a new one."""
    CONTRADICTION = "header contradicts pixels"
    """The pixels show that they are not stored as the header says: sign, bits, byte order, size."""
    INVERTED = "inverted grey levels"
    """The air is bright, whatever the header or the format says."""
    UNSUPPORTED_SYNTAX = "no decoder"
    """A DICOM transfer syntax that is not read."""
    UNSUPPORTED_IMAGE = "unsupported image"
    """A sound file of a kind that is not read: colour, several pages of grey, odd bits."""

    # A sound DICOM file that is no screening mammogram
    NO_PIXELS = "no image in the file"
    """A DICOMDIR, a report, a segmentation or another object without a mammogram."""
    WRONG_MODALITY = "wrong modality"
    TOMOSYNTHESIS = "tomosynthesis"
    """A stack of slices or projections; a synthesized 2D image is read."""
    FOR_PROCESSING = "for processing"
    """Raw detector values, which no vendor means to be looked at."""
    SECONDARY_CAPTURE = "secondary capture"
    """A screenshot or a scan; read where the data set is known to be stored so."""
    QUALITY_CONTROL = "quality control image"
    """A test object or a calibration."""
    SPECIMEN = "specimen"
    BIOPSY = "biopsy or stereotactic image"
    SPOT = "spot compression"
    MAGNIFICATION = "magnification"
    IMPLANT = "implant in view"
    IMPLANT_DISPLACED = "implant displaced"
    BURNED_IN = "burned-in annotation"
    NO_LATERALITY = "no laterality"

    # Its annotation
    MISSING_MASK = "missing mask"
    UNREADABLE_MASK = "unreadable mask"
    MASK_SIZE = "mask of another size"
    """Of another aspect, too: a mask of another size but the image's aspect is resampled."""
    UNKNOWN_CLASS = "class not known"
    """It marks several classes, and which is malignant is not known."""
    EMPTY_MASK = "empty mask"
    """A malignant row whose annotation marks nothing."""
    IMPLAUSIBLE_IMAGE = "implausible image"
    """No mammogram looks so: an icon, or a breast that is all one grey."""
    IMPLAUSIBLE_MASK = "implausible mask"
    """No finding looks so: it marks the breast, what is around it, or nearly everything."""
    DOUBTFUL_MASK = "doubtful mask"
    """One that somebody should look at before it is trained on."""
    NO_BREAST = "no breast found"


JUDGED = frozenset(
    {
        Reason.UNKNOWN_CLASS,
        Reason.IMPLAUSIBLE_IMAGE,
        Reason.IMPLAUSIBLE_MASK,
        Reason.DOUBTFUL_MASK,
    }
)
"""Reasons for which files that are there, and are read, are left out all the same."""


class FileRejected(DataError):
    """A row or a file cannot be used.

    Attributes:
        reason: The kind of trouble, to be counted.
        detail: What was found, in words; never a patient's identity.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Join reason and detail into the one line that a user reads."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was left aside.

    Attributes:
        row_number: Its line in the table as a text editor counts (the header is line 1), or its
            place in the listing of a folder without a table.
        image: Its image as the site calls it. It stays at the site.
        reason: The kind of trouble.
        detail: What was found.
    """

    row_number: int
    image: str
    reason: Reason
    detail: str


def rejection(row_number: int, image: str, refusal: FileRejected) -> Rejection:
    """Say which row a refusal was about."""
    return Rejection(row_number, image, refusal.reason, refusal.detail)
