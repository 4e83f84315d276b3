"""Terms of the domain: stages of a run, parts of a split, purposes of images.

Imports neither Flower nor torch, so that commands which only read data start quickly.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mamfed_common.config import DIGEST, printable


class Stage(StrEnum):
    """The two stages of a run, in order."""

    PRETRAINING = "pretraining"
    FINETUNING = "finetuning"


Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Purpose = Literal["benign", "malignant", "without_malignancy"]
PurposeName = Annotated[str, Field(pattern="^(benign|malignant|without_malignancy)$")]
"""A purpose as a key that another machine sent."""
PURPOSES: tuple[Purpose, ...] = ("benign", "malignant", "without_malignancy")
"""For stage 1; for stage 2 and its evaluation; images on which any marked pixel is a false alarm,
which include the benign ones."""
TRAINED_ON: dict[Stage, Purpose] = {Stage.PRETRAINING: "benign", Stage.FINETUNING: "malignant"}
"""Purpose of the images that a stage trains on. Stage 2 may add companion images, see
``TrainingPlan.beside``."""
EVALUATED_ON: tuple[Purpose, ...] = ("malignant", "without_malignancy")
"""Dice is measured on the first, false alarms on the second."""
MAX_IMAGES = 10**7
"""Upper limit of a site's image counts, which determine the share of its updates."""


def _not_empty(counts: dict[Purpose, int]) -> dict[Purpose, int]:
    if not sum(counts.values()):
        raise ValueError("it counts no image")
    return counts


Digest = Annotated[str, Field(pattern=DIGEST)]
"""A SHA-256 in hexadecimal."""
Splits = Annotated[tuple[Digest, ...], Field(max_length=64)]
"""One digest per data set, over its name and the SHA-256 and part of each image.

Anyone who has all files of a data set and knows its name can recognise it; nobody can test for
single images (docs/decisions/0037).
"""

Count = Annotated[int, Field(ge=0, le=MAX_IMAGES, strict=True)]  # refuses JSON's true and 7.0
_Name = Annotated[str, Field(max_length=100), AfterValidator(printable)]
Tally = Annotated[dict[_Name, Count], Field(max_length=256)]
"""Counts by name, such as a reason or a vendor: as many as a hospital can have, and no more."""
Examples = Annotated[dict[Purpose, Count], AfterValidator(_not_empty)]
"""Images that a site used, by purpose; they determine its share of the average."""
