"""A site's survey: its data in signed counts, which a person sends to the coordinator by hand."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA384
from pydantic import AfterValidator, Field

from mamfed_common.config import SITE_NAME, Config, ExtensibleConfig, printable
from mamfed_common.domain import Count, Part, Purpose
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.file_kinds import FileKind, expecting

PURPOSE = b"mamfed survey v1\n"
LARGEST_SITE = 10**6
"""Limit of every measured value: no image has so many rows, no breast such an area."""

Medium = Literal["film", "digital", "unknown"]
Measure = Literal[
    "spacing_mm",
    "rows",
    "columns",
    "breast_share",
    "breast_cm2",
    "tone_5",
    "tone_25",
    "tone_50",
    "tone_75",
    "tone_95",
]
MEASURES: dict[Measure, str] = {
    "spacing_mm": "pixel spacing in mm",
    "rows": "image height in pixels",
    "columns": "image width in pixels",
    "breast_share": "share of the image that is breast",
    "breast_cm2": "breast area in cm²",
    "tone_5": "tone that 5 % of the breast is darker than, 0 to 1",
    "tone_25": "tone that 25 % of the breast is darker than",
    "tone_50": "tone that half of the breast is darker than",
    "tone_75": "tone that 75 % of the breast is darker than",
    "tone_95": "tone that 95 % of the breast is darker than",
}
"""What is measured, in words; tones are of prepared images, on which tissue is bright."""
PART_WORDS: dict[Part, str] = {"train": "training", "val": "validation", "test": "test"}

_Value = Annotated[float, Field(ge=0, le=LARGEST_SITE)]
_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]


class Cell(Config):
    """Patients and images of one kind, each rounded down to a multiple of the site's minimum."""

    patients: Count
    images: Count


Cells = Annotated[dict[_Name, Cell], Field(max_length=64)]


class Figure(Config):
    """A measured value over patients, each with the median of their images.

    Attributes:
        patients: Patients behind it, rounded down like a :class:`Cell`.
        mean: Their mean, two digits.
        quartiles: Their quartiles, two digits, where the site's minimum lies beyond each.
    """

    patients: Count
    mean: _Value
    quartiles: tuple[_Value, _Value, _Value] | None = None


class Survey(ExtensibleConfig):
    """A site's data in counts: no date, no name but the site's, no path, no patient.

    Attributes:
        format: Name and version of the format.
        site: The site's name.
        minimum: Fewest patients behind a figure (``policy.min_patients_to_report``).
        uses: Images by the use that they have in training; benign ones are without malignancy too.
        parts: The same by part, where the table says each patient's part or a plan draws it.
        makers: Usable images by maker of the unit, from a fixed list.
        views: Usable images by view.
        media: Usable images by what they were taken with.
        measures: Measured values of the usable images.
        withheld: Number of cells and values over too few patients, which stayed.
        signature: ECDSA with SHA-384 by the node key over :meth:`signed_bytes`, base64.
    """

    OMITTED: ClassVar[frozenset[str]] = frozenset({"parts"})

    format: Literal["mamfed survey 1"] = "mamfed survey 1"
    site: str = Field(pattern=SITE_NAME)
    minimum: int = Field(ge=1, le=LARGEST_SITE)
    uses: dict[Purpose, Cell]
    parts: dict[Purpose, dict[Part, Cell]] = Field(default={})
    makers: Cells
    views: Cells
    media: dict[Medium, Cell]
    measures: dict[Measure, Figure]
    withheld: Count
    signature: str = Field(default="", max_length=256)

    def signed_bytes(self) -> bytes:
        """Return the bytes that are signed: a purpose, and the other fields as canonical JSON."""
        values = self.model_dump(mode="json", exclude={"signature"})
        return PURPOSE + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def signed(self, key: EllipticCurvePrivateKey) -> Survey:
        """Return the survey with a node key's signature."""
        signature = key.sign(self.signed_bytes(), ECDSA(SHA384()))
        return self.model_copy(update={"signature": base64.b64encode(signature).decode()})

    def is_signed(self, key: EllipticCurvePublicKey) -> bool:
        """Return whether a node key signed it."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
            key.verify(signature, self.signed_bytes(), ECDSA(SHA384()))
        except (binascii.Error, ValueError, InvalidSignature):
            return False
        return True


def read_survey(path: Path) -> Survey:
    """Read a survey without checking its signature.

    Raises:
        SetupError: It cannot be read, is too large or is not a survey.
    """
    with expecting(FileKind.SURVEY, path):
        return read_json(Survey, path)


def check_signature(survey: Survey, key: EllipticCurvePublicKey, path: Path) -> None:
    """Refuse a survey that a key did not sign.

    Raises:
        SetupError: Another key signed it, or it was altered.
    """
    if not survey.is_signed(key):
        raise SetupError(
            f"{path}: altered, or not signed with the key of {survey.site} that is known here; "
            "ask the site for it again"
        )


def is_survey(head: bytes) -> bool:
    """Return whether a file is a survey, given its first bytes."""
    return b"mamfed survey" in head
