"""A site: its name, its cohorts, and what they hold for a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from mamfed_client.preparation.cohort import Cohort, LazySamples, load_cohort
from mamfed_client.preparation.overlap import check_apart
from mamfed_client.preparation.sample_store import StoredSample
from mamfed_common.domain import PURPOSES, Part, Purpose
from mamfed_common.plan import TRAINED_ON, Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.terminal import print_lines
from mamfed_common.transforms.sample import Sample

Key = TypeVar("Key", bound=str)

_loaded: dict[Hashable, SiteData] = {}


@dataclass(frozen=True)
class Site:
    """Where a site's data lies.

    Attributes:
        name: The site's name in the federation.
        cohorts: Name and folder of each data set that it holds. A cohort's name seeds its split,
            so the same cohort is split alike wherever it is used.
        cache: Where prepared images are kept.
        key_path: Key of prepared folders that are encrypted.
    """

    name: str
    cohorts: tuple[tuple[str, Path], ...]
    cache: Path
    key_path: Path | None = None


class SiteData:
    """A site's prepared images for one plan."""

    def __init__(self, name: str, cohorts: Sequence[Cohort]) -> None:
        """Join the cohorts of one site."""
        self.name = name
        self.cohorts = cohorts

    def samples(self, purposes: Iterable[Purpose], part: Part) -> JoinedSamples:
        """Return the images of some purposes and one part of the split, read when looked at."""
        return JoinedSamples(c.samples(purpose, part) for purpose in purposes for c in self.cohorts)

    def patients(self, purposes: Iterable[Purpose], part: Part) -> list[str]:
        """Return whose each of those images is, in their order; it never leaves the site."""
        cohorts = (c.samples(purpose, part) for purpose in purposes for c in self.cohorts)
        return [image.case.row.patient_id for samples in cohorts for image in samples.placed]

    def training(self, plan: TrainingPlan, stage: Stage) -> tuple[JoinedSamples, JoinedSamples]:
        """Return the training images of a stage, and in stage 2 those that stand beside them.

        Both are empty where this site takes no part in the stage.
        """
        used = self.describe().images_used(plan, stage)
        own: list[Purpose] = [TRAINED_ON[stage]]
        beside = [kind for kind in used if kind not in own]
        return self.samples(own, "train"), self.samples(beside, "train")

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
            splits=tuple(cohort.split_sha256() for cohort in self.cohorts),
        )


def load_site(site: Site, plan: TrainingPlan, *, progress: bool = False) -> SiteData:
    """Read and prepare a site's cohorts for a plan, once in a process.

    Args:
        site: The site.
        plan: Of it, image size and the split's seed, shares and fold matter.
        progress: Whether to show a progress bar on stderr while images are prepared.

    Raises:
        DataError: A cohort cannot be used, or one trains on what another one tests.
    """
    split = plan.evaluation
    fold = (split.fold, split.folds) if split.folds else None
    division = (split.split_seed, split.validation_fraction, split.test_fraction, fold)
    key = (site, plan.image_size, *division)
    if key not in _loaded:
        cohorts = [
            load_cohort(
                name,
                folder,
                size=plan.image_size,
                seed=split.split_seed,
                val_fraction=split.validation_fraction,
                test_fraction=split.test_fraction,
                fold=fold,
                cache_dir=site.cache,
                key_path=site.key_path,
                progress=progress,
            )
            for name, folder in site.cohorts
        ]
        notes = check_apart({cohort.name: cohort for cohort in cohorts})
        print_lines(notes if progress else ())
        _loaded[key] = SiteData(site.name, cohorts)
    return _loaded[key]


class JoinedSamples(LazySamples):
    """Several sequences as one, without reading any."""

    def __init__(self, parts: Iterable[LazySamples]) -> None:
        """Join sequences in their order."""
        self._index = list(chain.from_iterable(((p, i) for i in range(len(p))) for p in parts))

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices needed
        """Read one sample."""
        part, position = self._index[index]
        return part[position]

    def entry(self, index: int) -> tuple[str, StoredSample]:
        """Return an image's name and its prepared sample."""
        part, position = self._index[index]
        return part.entry(position)

    def first(self, count: int) -> JoinedSamples:
        """Return the first samples, at most so many."""
        short = JoinedSamples(())
        short._index = self._index[:count]
        return short


def _add(counts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: Counter[Key] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
