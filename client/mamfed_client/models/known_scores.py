"""The scores of a run's models at this site, ``scores.json``: they stay here."""

from __future__ import annotations

from collections.abc import Sequence

from mamfed_common.config import Config
from mamfed_common.metrics.scores import ImageScore
from mamfed_common.metrics.site_score import SiteScore

ByImage = tuple[tuple[int, float], ...]
"""For each image with malignancy its patient, numbered from 0 in order of appearance, and its Dice.
The numbers name nobody; they let the intervals take the images of a patient together."""


class KnownScores(Config):
    """The scores of a run's models on this site's test patients.

    Attributes:
        run: The coordinator's name for the run; empty in a simulation.
        from_file: Whether a person at this site added the shared model as a file.
        shared: Score of the shared model; None if unknown.
        personal: Score of the personal model; None if unknown.
        shared_images: What is behind the shared model's Dice; older versions stored nothing.
        personal_images: What is behind the personal model's.
    """

    run: str = ""
    from_file: bool = False
    shared: SiteScore | None = None
    personal: SiteScore | None = None
    shared_images: ByImage = ()
    personal_images: ByImage = ()


def by_image(scores: Sequence[ImageScore], patients: Sequence[str]) -> ByImage:
    """Return what is behind a mean Dice, without the names of images and patients.

    Args:
        scores: The score of each image.
        patients: The patient of each image, in the same order.
    """
    scored = [(p, s) for p, s in zip(patients, scores, strict=True) if s.lesion_pixels]
    numbers: dict[str, int] = {}
    for patient, _ in scored:
        numbers.setdefault(patient, len(numbers))
    return tuple((numbers[patient], score.dice) for patient, score in scored)
