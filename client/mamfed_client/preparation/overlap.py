"""Find pictures that two data sets trained together share, by comparing their pixels.

Each data set is split by its own name, so one may test on pictures that another trains on, and the
result would cover images that the network has seen. Sites of a real federation cannot compare their
pictures; the data sets of a simulation, or of a single site, are compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from mamfed_client.preparation.cohort import Cohort
from mamfed_common.domain import Part
from mamfed_common.errors import DataError
from mamfed_common.runtime.wording import counted


class Overlap(NamedTuple):
    """Pictures that two data sets share.

    Attributes:
        names: The names of the two data sets.
        pictures: The number of shared pictures.
        divided: The number of shared pictures that are in different parts of the split.
    """

    names: tuple[str, str]
    pictures: int
    divided: int

    def __str__(self) -> str:
        """Describe the overlap in a sentence that names no picture."""
        first, second = self.names
        return f"{first} and {second} share {counted(self.pictures, 'picture')}"


def check_apart(cohorts: Mapping[str, Cohort]) -> tuple[str, ...]:
    """Refuse data sets if one trains on pictures that another holds out.

    Args:
        cohorts: The data sets by the names used in messages.

    Returns:
        A note on each pair of data sets that share pictures, all in the same part of both splits.

    Raises:
        DataError: Some shared pictures are in different parts.
    """
    overlaps = list(_overlaps(cohorts))
    for overlap in overlaps:
        if overlap.divided:
            raise DataError(
                f"{overlap}, {overlap.divided} of them in different parts of the split: one trains "
                "on what the other tests; omit one of the two, remove the pictures from one, or "
                "declare both splits in a split column"
            )
    return tuple(f"{overlap}, which are used twice in training" for overlap in overlaps)


def _overlaps(cohorts: Mapping[str, Cohort]) -> Iterator[Overlap]:
    parts = {name: _parts(cohort) for name, cohort in cohorts.items()}
    for first, second in combinations(parts, 2):
        shared = parts[first].keys() & parts[second].keys()
        if shared:
            divided = sum(parts[first][picture] != parts[second][picture] for picture in shared)
            yield Overlap((first, second), len(shared), divided)


def _parts(cohort: Cohort) -> dict[str, Part]:
    return {image.case.result.pixels: image.part for image in cohort.images}
