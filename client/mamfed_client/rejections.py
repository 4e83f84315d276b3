"""One bad row or file: refused by name, while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mamfed_common.errors import DataError


class Reason(StrEnum):
    """Why a row of the table cannot be used."""

    WRONG_CELLS = "wrong number of cells"
    """The row has more or fewer cells than the header."""
    NO_PATIENT = "no patient"
    """The patient_id cell is empty, so the row cannot be kept on one side of the split."""
    BAD_LABEL = "bad label"
    """The pathology or birads cell holds something unknown."""
    BAD_LATERALITY = "bad laterality"
    BAD_SPACING = "bad spacing"
    """The spacing_mm cell is not a positive number."""
    PATH_LEAVES_FOLDER = "path leaves the folder"
    """An absolute path, or one with ``..``."""
    MISSING_IMAGE = "missing image"
    DUPLICATE_IMAGE = "duplicate image"
    """An earlier row names the same image."""
    UNREADABLE_IMAGE = "unreadable image"
    UNSUPPORTED_IMAGE = "unsupported image"
    """A sound file of a kind that is not read: compressed DICOM, colour, several frames."""
    MISSING_MASK = "missing mask"
    UNREADABLE_MASK = "unreadable mask"
    MASK_SIZE = "mask of another size"
    EMPTY_MASK = "empty mask"
    """A malignant row whose mask marks nothing."""
    NO_BREAST = "no breast found"


class Refusal(DataError):
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
        row_number: Its line in the table as a text editor counts; the header is line 1.
        image: Its image cell as written. It stays at the site.
        reason: The kind of trouble.
        detail: What was found.
    """

    row_number: int
    image: str
    reason: Reason
    detail: str


def rejection(row_number: int, image: str, refusal: Refusal) -> Rejection:
    """Say which row a refusal was about."""
    return Rejection(row_number, image, refusal.reason, refusal.detail)
