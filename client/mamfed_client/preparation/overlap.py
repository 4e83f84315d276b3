"""The same pictures in two data sets that train together, known by their pixels.

Each data set is split by its own name, so what one trains on another may test: the result would be
of images that the network has seen. Sites of a real federation cannot compare their pictures; of a
simulation, and of one site's own data sets, they are compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from mamfed_client.preparation.cohort import Cohort
from mamfed_common.domain import Part
from mamfed_common.errors import DataError


class Overlap(NamedTuple):
    """Pictures that two data sets share.

    Attributes:
        names: What the two are called.
        pictures: How many.
        divided: How many of them are in different parts of the split.
    """

    names: tuple[str, str]
    pictures: int
    divided: int

    def __str__(self) -> str:
        """Say it in a sentence that names no picture."""
        first, second = self.names
        what = "picture" if self.pictures == 1 else "pictures"
        return f"{first} and {second} hold {self.pictures} of the same {what}"


def check_apart(cohorts: Mapping[str, Cohort]) -> tuple[str, ...]:
    """Refuse data sets of which one trains on what another holds out.

    Args:
        cohorts: Each data set by what it is called in messages.

    Returns:
        A note on each two that share pictures, all of them in the same part of both splits.

    Raises:
        DataError: Some shared pictures are in different parts.
    """
    overlaps = list(_overlaps(cohorts))
    for overlap in overlaps:
        if overlap.divided:
            raise DataError(
                f"{overlap}, {overlap.divided} of them in different parts of the split: one trains "
                "on what the other tests; leave one of the two out, or take the pictures out of "
                "one, or declare both splits in a split column"
            )
    return tuple(f"{overlap}, which are trained on twice" for overlap in overlaps)


def _overlaps(cohorts: Mapping[str, Cohort]) -> Iterator[Overlap]:
    parts = {name: _parts(cohort) for name, cohort in cohorts.items()}
    for first, second in combinations(parts, 2):
        shared = parts[first].keys() & parts[second].keys()
        if shared:
            divided = sum(parts[first][picture] != parts[second][picture] for picture in shared)
            yield Overlap((first, second), len(shared), divided)


def _parts(cohort: Cohort) -> dict[str, Part]:
    return {image.case.outcome.pixels: image.part for image in cohort.placed}
