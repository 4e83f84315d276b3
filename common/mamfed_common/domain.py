"""Terms of the domain: stages of a run, parts of a split, purposes of images.

Imports neither Flower nor torch, so that commands which only read data start quickly.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mamfed_common.config import DIGEST


class Stage(StrEnum):
    """The two stages of a run, in order."""

    PRETRAINING = "pretraining"
    FINETUNING = "finetuning"


Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Purpose = Literal["benign", "malignant", "without_malignancy"]
PURPOSES: tuple[Purpose, ...] = ("benign", "malignant", "without_malignancy")
"""Stage 1; stage 2 and its evaluation; images on which every alarm is false, benign ones too."""
TRAINED_ON: dict[Stage, Purpose] = {Stage.PRETRAINING: "benign", Stage.FINETUNING: "malignant"}
"""The images that a stage learns from; stage 2 may add others, see ``TrainingPlan.beside``."""
EVALUATED_ON: tuple[Purpose, ...] = ("malignant", "without_malignancy")
"""Dice where there is malignancy, false alarms where there is none."""
MAX_IMAGES = 10**7
"""More images than any site has: their number is the weight of its updates."""


def _some(counts: dict[Purpose, int]) -> dict[Purpose, int]:
    if not sum(counts.values()):
        raise ValueError("it counts no image")
    return counts


Digest = Annotated[str, Field(pattern=DIGEST)]
"""A SHA-256 in hexadecimal."""
Splits = Annotated[tuple[Digest, ...], Field(max_length=64)]
"""One digest a data set: over its name and the SHA-256 and part of each of its images.

Whoever has all files of a data set and knows its name can tell that it is that one; nobody can try
single images (docs/decisions/0037).
"""

Count = Annotated[int, Field(ge=0, le=MAX_IMAGES, strict=True)]  # JSON's true and 7.0 are none
Examples = Annotated[dict[Purpose, Count], AfterValidator(_some)]
"""Images that a site used, by kind: what its weight in the average is made of."""
