"""What is used and yet may be wrong: listed, counted and shown first, for a person to decide.

Of the three strengths of a check this is the middle one: what is certainly wrong is refused
(``rejections``), what is fine is not mentioned.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple


class Doubt(StrEnum):
    """Why an image or a mask may be wrong; the value is what counts call it."""

    # Masks: whatever trains on them learns them
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
        """What it means and what to do, in plain words."""
        return SENTENCES[self]

    @property
    def about_mask(self) -> bool:
        """Whether the target of training is in doubt, not only what is known of the image."""
        return self.name.startswith("MASK")


SENTENCES: dict[Doubt, str] = {
    Doubt.MASK_LARGE: "The mask marks more of the breast than findings do: it may outline the "
    "breast, or all dense tissue.",
    Doubt.MASK_OUTSIDE: "Much of the mask lies beside the breast: it may belong to another image, "
    "or be mirrored.",
    Doubt.MASK_THRESHOLD: "The mask is what is brighter than one grey level: it may come from the "
    "image, not from a reader.",
    Doubt.MASK_SPECKS: "The mask is scattered over hundreds of pieces.",
    Doubt.MASK_RING: "The mask is a thin line around something: an outline that was not filled.",
    Doubt.MASK_BOX: "The mask is an upright rectangle: it says where a finding is, not its shape.",
    Doubt.MASK_CLASS: "The file names the class of what it marks by a word that is not known: say "
    "--classes if it is malignant.",
    Doubt.MASK_OF_ANOTHER: "The annotation refers to another image by its SOP Instance UID: look "
    "whether the row names the right file.",
    Doubt.MASK_BY_PROGRAM: "A program made the mask, and the file does not say that anybody "
    "looked.",
    Doubt.MASKS_ALIKE: "The masks of many images have the very same size: they may be "
    "placeholders.",
    Doubt.MASKS_LARGE: "Masks cover far more of the breast than elsewhere: another class may be in "
    "them.",
    Doubt.SIDE_DISAGREES: "The table's side is used; look whether the row names the right file.",
    Doubt.VIEW_DISAGREES: "The table's view is used; look whether the row names the right file.",
    Doubt.WINDOW: "A window or LUT of the file would show most of the breast at one level: the "
    "next one, or the full range, is used.",
    Doubt.PADDING: "The padding that the file names is tissue in part: only what lies around the "
    "breast is left out.",
    Doubt.POLARITY: "Two elements say which end is bright, and contradict each other: the air, "
    "which is dark, decided.",
    Doubt.IMAGE_SMALL: "The image is a thumbnail: too few pixels for a finding.",
    Doubt.SATURATED: "Much of the breast has one grey level: a window or a table may not fit the "
    "image, or its air is bright.",
    Doubt.SATURATED_VENDOR: "Nearly all images of a vendor have much of the breast at one grey "
    "level: their export may be wrong.",
    Doubt.NO_BACKGROUND: "Tissue reaches all four borders: it may be a piece of a mammogram, no "
    "breast, or an image whose air is bright.",
    Doubt.SMOOTH: "The breast has no texture: it may be enlarged from a small picture, or be no "
    "breast.",
    Doubt.NOISE: "The breast is all grains: its bytes may have been read in a wrong order.",
    Doubt.TWO_BREASTS: "Two breasts seem to be in one picture: cut it in two.",
    Doubt.LYING: "The chest wall seems to be at the top or at the bottom: turn the image.",
    Doubt.UPSIDE_DOWN: "The chest muscle seems to be at the bottom: turn the image.",
    Doubt.MIRRORED: "The breast points the other way than others of its side: it may be "
    "mirrored, or the side is wrong.",
}


class Doubtful(NamedTuple):
    """One doubt about one image.

    Attributes:
        doubt: Its kind.
        detail: What was found, in words; never a patient's identity.
    """

    doubt: Doubt
    detail: str = ""

    def __str__(self) -> str:
        """Join both into one line."""
        return f"{self.doubt}: {self.detail}" if self.detail else str(self.doubt)


Doubts = tuple[Doubtful, ...]


def to_json(doubts: Iterable[Doubtful]) -> list[list[str]]:
    """Return what JSON can hold."""
    return [[str(doubt), detail] for doubt, detail in doubts]


def from_json(content: Any) -> Doubts:
    """Make the doubts that :func:`to_json` described.

    Raises:
        TypeError, ValueError: It describes none.
    """
    return tuple(Doubtful(Doubt(doubt), str(detail)) for doubt, detail in content)
