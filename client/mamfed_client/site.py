"""A site: its name, its cohorts, and what they hold for a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TypeVar

from mamfed_client.cohort import PURPOSES, Cohort, Purpose, load_cohort
from mamfed_common.plan import TrainingPlan
from mamfed_common.samples import Sample
from mamfed_common.weights import Part, SiteDescription

Key = TypeVar("Key", bound=str)

EVALUATED: tuple[Purpose, ...] = ("malignant", "without_malignancy")
"""What an evaluation looks at: Dice where there is malignancy, false alarms where there is none."""


@dataclass(frozen=True)
class Site:
    """Where a site's data lies.

    Attributes:
        name: The site's name in the federation.
        cohorts: Name and folder of each data set that it holds. A cohort's name seeds its split,
            so the same cohort is split alike wherever it is used.
        cache: Where prepared images are kept.
    """

    name: str
    cohorts: tuple[tuple[str, Path], ...]
    cache: Path


class SiteData:
    """A site's prepared images for one plan."""

    def __init__(self, name: str, cohorts: Sequence[Cohort]) -> None:
        """Join the cohorts of one site."""
        self.name = name
        self.cohorts = cohorts

    def samples(self, purposes: Iterable[Purpose], part: Part) -> Sequence[Sample]:
        """Return the images of some purposes and one part of the split, read when looked at."""
        return joined(c.samples(purpose, part) for purpose in purposes for c in self.cohorts)

    def describe(self) -> SiteDescription:
        """Count what is here; nothing in it identifies a patient."""
        counts = [cohort.counts for cohort in self.cohorts]
        return SiteDescription(
            site=self.name,
            images={k: _add(c.images[k] for c in counts) for k in PURPOSES},
            patients={k: _add(c.patients[k] for c in counts) for k in PURPOSES},
            rows=sum(c.rows for c in counts),
            rejected=_add(c.rejected for c in counts),
            left_out=_add(c.left_out for c in counts),
            vendors=_add(c.vendors for c in counts),
        )


def load_site(site: Site, plan: TrainingPlan) -> SiteData:
    """Read and prepare a site's cohorts for a plan; the last few are kept in memory.

    Raises:
        DataError: A cohort cannot be used.
    """
    fractions = (plan.evaluation.validation_fraction, plan.evaluation.test_fraction)
    return _load(site, plan.image_size, plan.seed, *fractions)


@lru_cache(maxsize=16)
def _load(site: Site, size: int, seed: int, val_fraction: float, test_fraction: float) -> SiteData:
    cohorts = [
        load_cohort(
            name,
            folder,
            size=size,
            seed=seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            cache_dir=site.cache,
        )
        for name, folder in site.cohorts
    ]
    return SiteData(site.name, cohorts)


def joined(parts: Iterable[Sequence[Sample]]) -> Sequence[Sample]:
    """Return several sequences as one, without reading any image."""
    return _Joined(list(parts))


class _Joined(Sequence[Sample]):
    """Several sequences as one, without reading any."""

    def __init__(self, parts: Sequence[Sequence[Sample]]) -> None:
        self._index = list(chain.from_iterable(((p, i) for i in range(len(p))) for p in parts))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices needed
        part, position = self._index[index]
        return part[position]


def _add(counts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: Counter[Key] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
