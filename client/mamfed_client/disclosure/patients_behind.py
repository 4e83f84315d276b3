"""The patients behind a figure: how many they are, and how few would tell two figures apart.

A mean over nine patients says little of each; a mean over one is that patient. The difference of
two means over ten and eleven patients is one patient as well (query set overlap: Dobkin, Jones and
Lipton, ACM TODS 4(1), 1979), so the groups behind two figures are equal or differ by many.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mamfed_client.preparation.cohort import SplitImage
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.runtime.fingerprint import sha256_of

NAME_DIGITS = 16
"""Hex digits of a patient's and of its images' keyed hash: enough to tell a site's patients."""

Patients = Mapping[str, str]
"""Patients by a keyed hash, each with a hash of its images. It never leaves the site."""


class PatientsBehind(NamedTuple):
    """The patients behind the two kinds of figures of an answer.

    Attributes:
        images: Patients of images with malignancy, or of all images of a training.
        others: Patients of images without malignancy.
    """

    images: Patients
    others: Patients = MappingProxyType({})

    def counts(self) -> dict[str, int]:
        """Return the number of patients behind each count, without zeros."""
        counts = {count: len(getattr(self, group)) for group, count in GROUPS.items()}
        return {name: number for name, number in counts.items() if number}

    def scored(self, few: Collection[str]) -> list[Patients]:
        """Return the groups whose figures leave: those whose count is not among ``few``."""
        return [getattr(self, group) for group, count in GROUPS.items() if count not in few]


GROUPS = {"images": "images", "others": "images_without_malignancy"}
"""The groups of :class:`PatientsBehind`, each with the count of a score that is over it."""


def trained_on(images: Iterable[SplitImage], secret: bytes) -> PatientsBehind:
    """Return the patients of a training."""
    return PatientsBehind(_patients(images, secret))


def scored_on(
    images: Iterable[SplitImage], scores: Iterable[ImageScore], secret: bytes
) -> PatientsBehind:
    """Return the patients of a score: images and their results, in one order."""
    pairs = list(zip(images, scores, strict=True))
    return PatientsBehind(
        _patients((image for image, score in pairs if score.lesion_pixels), secret),
        _patients((image for image, score in pairs if not score.lesion_pixels), secret),
    )


def is_too_few(patients: Collection[str], minimum: int) -> bool:
    """Return whether a figure over these patients would show some of them; nobody is no one."""
    return 0 < len(patients) < minimum


def told_apart(patients: Patients, others: Patients) -> int:
    """Return how many patients two groups differ by: by their presence, or by their images."""
    return sum(patients.get(name) != others.get(name) for name in patients.keys() | others.keys())


def patients_sha256(patients: Patients) -> str:
    """Return the name of a group."""
    return sha256_of(sorted(patients.items()))


def _patients(images: Iterable[SplitImage], secret: bytes) -> dict[str, str]:
    digests: dict[str, list[str]] = {}
    for image in images:  # by the files: a prepared sample's digest changes with the plan's size
        found = image.case.result
        content = f"{found.image_sha256} {found.lesion_share!r}"
        digests.setdefault(image.case.row.patient_id, []).append(content)
    return {_keyed(secret, name): _keyed(secret, *sorted(own)) for name, own in digests.items()}


def _keyed(secret: bytes, *words: str) -> str:
    return hmac.digest(secret, "\n".join(words).encode(), "sha256").hex()[:NAME_DIGITS]
