"""Doubts about images and masks that are used but need review.

Doubts are listed, counted and shown first in reviews, so that a person can decide. What is
certainly wrong is rejected instead (``rejections``).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple


class Doubt(StrEnum):
    """Why an image or mask may be wrong; the values name the counts in reports and files."""

    # Masks
    MASK_LARGE = "mask covers much of the breast"
    MASK_OUTSIDE = "mask lies outside the breast"
    MASK_THRESHOLD = "mask follows the grey levels"
    MASK_SPECKS = "mask of specks"
    MASK_RING = "mask of a line"
    MASK_BOX = "mask is a box"
    MASK_CLASS = "mask of a class not known"
    MASK_OF_ANOTHER = "mask of another image"
    MASK_BY_PROGRAM = "mask made by a program"
    MASKS_ALIKE = "masks all alike"
    MASKS_LARGE = "masks far larger than usual"

    # The table against the file
    SIDE_DISAGREES = "table names another side than the file"
    VIEW_DISAGREES = "table names another view than the file"

    # The header against the pixels
    WINDOW = "window not used"
    PADDING = "padding in tissue"
    POLARITY = "polarity said twice"

    # Images
    IMAGE_SMALL = "small image"
    SATURATED = "much at one grey level"
    SATURATED_VENDOR = "a vendor at one grey level"
    NO_BACKGROUND = "breast on every border"
    SMOOTH = "no texture"
    NOISE = "noise"
    TWO_BREASTS = "two breasts"
    LYING = "lying on its side"
    UPSIDE_DOWN = "upside down"
    MIRRORED = "mirrored against its site"

    @property
    def sentence(self) -> str:
        """A sentence for the user: what the doubt means and what to do."""
        return SENTENCES[self]

    @property
    def about_mask(self) -> bool:
        """Whether the doubt concerns the mask, which is the training target."""
        return self.name.startswith("MASK")


SENTENCES: dict[Doubt, str] = {
    Doubt.MASK_LARGE: "The mask covers more of the breast than findings usually do: it may outline "
    "the breast or all dense tissue.",
    Doubt.MASK_OUTSIDE: "Much of the mask lies outside the breast: it may belong to another image "
    "or be mirrored.",
    Doubt.MASK_THRESHOLD: "The mask marks everything brighter than a certain grey level: it may be "
    "a threshold of the image rather than a reader's annotation.",
    Doubt.MASK_SPECKS: "The mask is scattered over hundreds of pieces.",
    Doubt.MASK_RING: "The mask is a thin closed line: the outline may not have been filled.",
    Doubt.MASK_BOX: "The mask is an upright rectangle: it shows where a finding is, but not its "
    "shape.",
    Doubt.MASK_CLASS: "The file gives the marked region an unknown class: name it with --classes "
    "if it is malignant.",
    Doubt.MASK_OF_ANOTHER: "The annotation refers to another image by its SOP Instance UID: check "
    "that the row names the right file.",
    Doubt.MASK_BY_PROGRAM: "A program made the mask, and the file does not say that anyone "
    "reviewed it.",
    Doubt.MASKS_ALIKE: "The masks of many images are identical in size: they may be placeholders.",
    Doubt.MASKS_LARGE: "The masks cover far more of the breast than usual: they may include "
    "another class.",
    Doubt.SIDE_DISAGREES: "The table's side is used: check that the row names the right file.",
    Doubt.VIEW_DISAGREES: "The table's view is used: check that the row names the right file.",
    Doubt.WINDOW: "A window or LUT in the file would show most of the breast at one grey level: "
    "the next one, or the full range, is used instead.",
    Doubt.PADDING: "The padding that the file declares is partly tissue: only the part around the "
    "breast is treated as padding.",
    Doubt.POLARITY: "Two elements contradict each other on which end of the grey scale is bright: "
    "the image is shown so that the air is dark.",
    Doubt.IMAGE_SMALL: "The image is a thumbnail with too few pixels to show a finding.",
    Doubt.SATURATED: "Much of the breast has a single grey level: the window or LUT may not fit "
    "the image, or its air is bright.",
    Doubt.SATURATED_VENDOR: "In nearly all images of a vendor, much of the breast has a single "
    "grey level: their export may be wrong.",
    Doubt.NO_BACKGROUND: "Tissue reaches all four borders: this may be part of a mammogram, not a "
    "breast, or an image whose air is bright.",
    Doubt.SMOOTH: "The breast has no texture: the image may have been enlarged from a small "
    "picture, or show no breast.",
    Doubt.NOISE: "The breast is nothing but noise: its bytes may have been read in the wrong "
    "order.",
    Doubt.TWO_BREASTS: "The picture seems to show two breasts: split it into two images.",
    Doubt.LYING: "The chest wall seems to be at the top or bottom: rotate the image.",
    Doubt.UPSIDE_DOWN: "The chest muscle seems to be at the bottom: rotate the image.",
    Doubt.MIRRORED: "The breast points in the opposite direction to others of its side: the image "
    "may be mirrored, or the side wrong.",
}


class Doubtful(NamedTuple):
    """One doubt about one image.

    Attributes:
        doubt: The kind of doubt.
        detail: What was found, in words; never identifies a patient.
    """

    doubt: Doubt
    detail: str = ""

    def __str__(self) -> str:
        """Return kind and detail as one line."""
        return f"{self.doubt}: {self.detail}" if self.detail else str(self.doubt)


Doubts = tuple[Doubtful, ...]


def to_json(doubts: Iterable[Doubtful]) -> list[list[str]]:
    """Convert doubts to JSON-serialisable lists."""
    return [[str(doubt), detail] for doubt, detail in doubts]


def from_json(content: Any) -> Doubts:
    """Restore doubts from the output of :func:`to_json`.

    Raises:
        TypeError, ValueError: The content is invalid.
    """
    return tuple(Doubtful(Doubt(doubt), str(detail)) for doubt, detail in content)
