"""Results apart by vendor, density, kind, view and size: a mean over all can hide one that fails.

Strata are of images with malignancy. One with fewer of them than a site may report is withheld.
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
"""Areas of discs 10 and 20 mm across, the sizes at which TNM's T1b and T1c end."""
BANDS_SHARE = (0.005, 0.02)
"""About the same shares of a breast of 150 cm2, where the pixel size is not known."""


class ImageFacts(NamedTuple):
    """What a site knows of an image beside its pixels. It stays at the site.

    Attributes:
        patient: Whose image it is.
        groups: The image's value of each property, e.g. ``vendor``; None where it is not known.
        breast_pixels: Pixels of the plan's grid inside the breast.
        spacing_mm: Distance of the grid's pixel centres, where it is known.
    """

    patient: Hashable
    groups: Mapping[str, str | None]
    breast_pixels: int
    spacing_mm: float | None = None


class Stratum(NamedTuple):
    """The images with malignancy that share one value of a property.

    Attributes:
        property: What they are told apart by.
        value: What they share.
        images: How many they are.
        patients: Patients behind them.
        dice: Their mean Dice.
        lesions: Malignant regions in them.
        sensitivity: Share of these that are found.
    """

    property: str
    value: str
    images: int
    patients: int
    dice: Interval
    lesions: int
    sensitivity: Interval


class Withheld(NamedTuple):
    """What is not reported of a property.

    Attributes:
        property: The property.
        strata: How many of its values have too few images.
        images: Their images.
        reason: Why.
    """

    property: str
    strata: int
    images: int
    reason: str


class Strata(NamedTuple):
    """What may be reported, and how much may not."""

    shown: tuple[Stratum, ...]
    withheld: tuple[Withheld, ...]


def stratify(
    scores: Sequence[ImageScore], facts: Mapping[str, ImageFacts], min_images: int
) -> Strata:
    """Report the images with malignancy apart by every property that the facts name, and by size.

    Args:
        scores: Any images' scores; those without malignancy are left out.
        facts: What is known of each image with malignancy, by its name.
        min_images: Images without which a stratum is withheld.
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
        few = [len(some) for some in by_value.values() if len(some) < min_images]
        if few:
            reason = f"fewer than {min_images} images"
            withheld.append(Withheld(name, len(few), sum(few), reason))
        enough = sorted(v for v, some in by_value.items() if len(some) >= min_images)
        shown += [_stratum(name, value, by_value[value], facts) for value in enough]
    return Strata(tuple(shown), tuple(withheld))


def lesion_size(score: ImageScore, facts: ImageFacts) -> tuple[str, str]:
    """Return the property and the band of an image's largest lesion.

    The property is ``lesion_mm2`` where the pixel size is known and ``lesion_share`` (of the
    breast) where it is not. Bands are fixed (:data:`BANDS_MM2`, :data:`BANDS_SHARE`): tertiles
    would be others in every data set.
    """
    pixels = max(lesion.pixels for lesion in score.lesion_scores)
    if facts.spacing_mm is not None:
        return "lesion_mm2", _band(pixels * facts.spacing_mm**2, BANDS_MM2, "{} mm2")
    return "lesion_share", _band(pixels / facts.breast_pixels, BANDS_SHARE, "{:.1%} of the breast")


def found_and_lesions(scores: Sequence[ImageScore]) -> npt.NDArray[np.int64]:
    """Return ``(2, images)``: how many lesions are found, and how many there are."""
    return np.array([[s.lesions_found for s in scores], [s.lesions for s in scores]], np.int64)


def share_found(found_and_lesions: npt.NDArray[np.int64]) -> float:
    """Return the share of lesions found, of ``(2, images)`` with a lesion or more."""
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
