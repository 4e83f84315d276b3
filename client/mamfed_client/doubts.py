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

    SIDE_DISAGREES = "table names another side than the file"
    VIEW_DISAGREES = "table names another view than the file"
    MASK_LARGE = "mask covers much of the breast"

    @property
    def sentence(self) -> str:
        """What it means and what to do, in plain words."""
        return SENTENCES[self]

    @property
    def about_mask(self) -> bool:
        """Whether the target of training is in doubt, not only what is known of the image."""
        return self in _ABOUT_MASKS


_ABOUT_MASKS = frozenset({Doubt.MASK_LARGE})

SENTENCES: dict[Doubt, str] = {
    Doubt.SIDE_DISAGREES: "The table's side is used; look whether the row names the right file.",
    Doubt.VIEW_DISAGREES: "The table's view is used; look whether the row names the right file.",
    Doubt.MASK_LARGE: "A mask marks more of the breast than findings do: it may outline the "
    "breast or dense tissue.",
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
