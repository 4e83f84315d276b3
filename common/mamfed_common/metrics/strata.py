"""Results by vendor, density, kind, view and lesion size; an overall mean can hide a weak group.

Strata consist of images with malignancy. Strata with fewer images than a site may report are
withheld.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mamfed_common.metrics.bootstrap import Interval, patient_bootstrap
from mamfed_common.metrics.scores import ImageScore

UNKNOWN = "unknown"

BANDS_MM2 = (79, 314)
"""Areas of discs 10 and 20 mm in diameter, the upper limits of TNM's T1b and T1c."""
BANDS_SHARE = (0.005, 0.02)
"""About the same areas as fractions of a breast of 150 cm2, for images without a pixel size."""


class ImageFacts(NamedTuple):
    """What a site knows about an image apart from its pixels. It never leaves the site.

    Attributes:
        patient: The image's patient.
        groups: The image's value of each property, e.g. ``vendor``; None if unknown.
        breast_pixels: Pixels of the plan's grid inside the breast.
        spacing_mm: Distance in mm between pixel centres of the grid, if known.
    """

    patient: Hashable
    groups: Mapping[str, str | None]
    breast_pixels: int
    spacing_mm: float | None = None


class Stratum(NamedTuple):
    """Result of the images with malignancy that share one value of a property.

    Attributes:
        property: The property.
        value: The value that they share.
        images: Number of images.
        patients: Number of their patients.
        dice: Their mean Dice.
        lesions: Number of lesions in them.
        sensitivity: Fraction of these lesions that were found.
    """

    property: str
    value: str
    images: int
    patients: int
    dice: Interval
    lesions: int
    sensitivity: Interval


class Withheld(NamedTuple):
    """The withheld strata of a property.

    Attributes:
        property: The property.
        strata: Number of its values that have too few images.
        images: Number of their images.
        reason: Why they are withheld.
    """

    property: str
    strata: int
    images: int
    reason: str


class Strata(NamedTuple):
    """The strata that may be reported, and counts of those that may not."""

    shown: tuple[Stratum, ...]
    withheld: tuple[Withheld, ...]


def stratify(
    scores: Sequence[ImageScore], facts: Mapping[str, ImageFacts], min_images: int
) -> Strata:
    """Group the images with malignancy by each property in the facts, and by lesion size.

    Args:
        scores: Scores of any images; those without malignancy are ignored.
        facts: Facts of each image with malignancy, by the image's name.
        min_images: Strata with fewer images are withheld.
    """
    members: defaultdict[str, defaultdict[str, list[ImageScore]]]
    members = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if not score.lesion_pixels:
            continue
        for name, value in _properties(score, facts[score.image]).items():
            members[name][value or UNKNOWN].append(score)
    shown, withheld = [], []
    for name, by_value in members.items():
        few = [len(images) for images in by_value.values() if len(images) < min_images]
        if few:
            reason = f"fewer than {min_images} images"
            withheld.append(Withheld(name, len(few), sum(few), reason))
        enough = sorted(v for v, images in by_value.items() if len(images) >= min_images)
        shown += [_stratum(name, value, by_value[value], facts) for value in enough]
    return Strata(tuple(shown), tuple(withheld))


def lesion_size(score: ImageScore, facts: ImageFacts) -> tuple[str, str]:
    """Return the size property and the band of an image's largest lesion.

    The property is ``lesion_mm2`` if the pixel size is known and ``lesion_share`` (of the breast)
    otherwise. Bands are fixed (:data:`BANDS_MM2`, :data:`BANDS_SHARE`), because tertiles would
    differ between data sets.
    """
    pixels = max(lesion.pixels for lesion in score.lesion_scores)
    if facts.spacing_mm is not None:
        return "lesion_mm2", _band(pixels * facts.spacing_mm**2, BANDS_MM2, "{} mm2")
    return "lesion_share", _band(pixels / facts.breast_pixels, BANDS_SHARE, "{:.1%} of the breast")


def found_and_lesions(scores: Sequence[ImageScore]) -> npt.NDArray[np.int64]:
    """Return ``(2, images)``: the number of lesions found and the number of lesions."""
    return np.array([[s.lesions_found for s in scores], [s.lesions for s in scores]], np.int64)


def share_found(found_and_lesions: npt.NDArray[np.int64]) -> float:
    """Return the fraction of lesions found, from ``(2, images)`` with at least one lesion."""
    found, lesions = found_and_lesions.sum(axis=1)
    return float(found / lesions)


def _properties(score: ImageScore, facts: ImageFacts) -> dict[str, str | None]:
    size, band = lesion_size(score, facts)
    return {**facts.groups, size: band}


def _band(size: float, bounds: tuple[float, float], written: str) -> str:
    small, large = (written.format(bound) for bound in bounds)
    if size <= bounds[0]:
        return f"up to {small}"
    return f"up to {large}" if size <= bounds[1] else f"over {large}"


def _stratum(
    name: str, value: str, scores: Sequence[ImageScore], facts: Mapping[str, ImageFacts]
) -> Stratum:
    patients = [facts[score.image].patient for score in scores]
    counts = found_and_lesions(scores)
    return Stratum(
        property=name,
        value=value,
        images=len(scores),
        patients=len(set(patients)),
        dice=patient_bootstrap(patients, np.array([score.dice for score in scores])),
        lesions=int(counts[1].sum()),
        sensitivity=patient_bootstrap(patients, counts, share_found),
    )
