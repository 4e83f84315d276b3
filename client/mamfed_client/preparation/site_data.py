"""A site's data: its cohorts, loaded and split for a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mamfed_client.preparation.cohort import Cohort, SplitImage, StoredSamples, load_cohort
from mamfed_client.preparation.overlap import check_apart
from mamfed_common.domain import PURPOSES, Part, Purpose
from mamfed_common.plan import TRAINED_ON, Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.terminal import print_lines

Key = TypeVar("Key", bound=str)

_loaded: dict[Hashable, SiteData] = {}


@dataclass(frozen=True)
class Site:
    """The location of a site's data.

    Attributes:
        name: The site's name in the federation.
        cohorts: Name and folder of each data set. A cohort's name seeds its split, so a cohort is
            split in the same way wherever it is used.
        cache: Where to store prepared images.
        key_path: Key of encrypted prepared folders.
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

    def samples(self, purposes: Iterable[Purpose], part: Part) -> StoredSamples:
        """Return the samples of some purposes in one part; each is read when it is accessed."""
        return StoredSamples(self._images(purposes, part))

    def patients(self, purposes: Iterable[Purpose], part: Part) -> list[str]:
        """Return the patient of each of :meth:`samples`, in order; this never leaves the site."""
        return [image.case.row.patient_id for image in self._images(purposes, part)]

    def training(self, plan: TrainingPlan, stage: Stage) -> tuple[StoredSamples, StoredSamples]:
        """Return a stage's training images and, in stage 2, the images that the plan adds to them.

        Both are empty if this site does not take part in the stage.
        """
        used = self.describe().images_used(plan, stage)
        own: list[Purpose] = [TRAINED_ON[stage]]
        beside = [kind for kind in used if kind not in own]
        return self.samples(own, "train"), self.samples(beside, "train")

    def describe(self) -> SiteDescription:
        """Return the site's counts; nothing in them identifies a patient."""
        counts = [cohort.counts for cohort in self.cohorts]
        return SiteDescription(
            site=self.name,
            images={k: _add(c.images[k] for c in counts) for k in PURPOSES},
            patients={k: _add(c.patients[k] for c in counts) for k in PURPOSES},
            rows=sum(c.rows for c in counts),
            rejected=_add(c.rejected for c in counts),
            left_out=_add(c.excluded for c in counts),
            vendors=_add(c.vendors for c in counts),
            splits=tuple(cohort.split_sha256() for cohort in self.cohorts),
        )

    def _images(self, purposes: Iterable[Purpose], part: Part) -> list[SplitImage]:
        samples = (c.samples(purpose, part) for purpose in purposes for c in self.cohorts)
        return [image for stored in samples for image in stored.images]


def division_of(plan: TrainingPlan) -> tuple[int, float, float, tuple[int, int] | None]:
    """Return what divides patients: seed, fractions of validation and test, fold of folds."""
    split = plan.evaluation
    fold = (split.fold, split.folds) if split.folds else None
    return split.split_seed, split.validation_fraction, split.test_fraction, fold


def load_site(site: Site, plan: TrainingPlan, *, progress: bool = False) -> SiteData:
    """Load a site's cohorts for a plan; each combination is loaded once per process.

    Args:
        site: The site.
        plan: The plan; only its image size and the seed, fractions and fold of its split matter.
        progress: Whether to show a progress bar on stderr while images are prepared.

    Raises:
        DataError: A cohort cannot be used, or one trains on images that another one tests.
    """
    division = division_of(plan)
    seed, val_fraction, test_fraction, fold = division
    key = (site, plan.image_size, *division)
    if key not in _loaded:
        cohorts = [
            load_cohort(
                name,
                folder,
                size=plan.image_size,
                seed=seed,
                val_fraction=val_fraction,
                test_fraction=test_fraction,
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


def _add(counts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: Counter[Key] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
