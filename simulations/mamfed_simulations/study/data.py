"""Load the data of a study: one data set in folds of patients, and benign images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.disclosure.evaluation_question import images_sha256
from mamfed_client.preparation.cohort import Cohort, SplitImage, StoredSamples, patient_strata
from mamfed_client.preparation.patient_split import draw_fold
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.domain import PARTS, Part
from mamfed_common.errors import DataError
from mamfed_common.metrics.row_account import RowAccount
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.fingerprint import sha256_of
from mamfed_common.transforms.sample import Sample

Parts = Mapping[str, Part]


class Fold(NamedTuple):
    """One split of the patients; each patient is in exactly one part.

    Attributes:
        training: Malignant images for training.
        validation: Malignant images that choose the epoch.
        test: Malignant images used neither for training nor for choices.
        test_patients: Patient of each test image, as a number within the study.
        benign: Benign training images of this data set and of those for pretraining.
    """

    training: Sequence[Sample]
    validation: Sequence[Sample]
    test: Sequence[Sample]
    test_patients: tuple[int, ...]
    benign: Sequence[Sample]

    def counts(self) -> dict[str, int]:
        """Return the number of images per part and of test patients."""
        return {
            "training": len(self.training),
            "validation": len(self.validation),
            "test": len(self.test),
            "test patients": len(set(self.test_patients)),
            "benign": len(self.benign),
        }


class StudyData(NamedTuple):
    """The folds of a study, and the rows that it does not use.

    Attributes:
        folds: The splits; one without cross-validation.
        left_out: Lines for the user: how every row is used, then what was excluded or rejected,
            with counts.
        sha256: Hash over the images and their split.
    """

    folds: tuple[Fold, ...]
    left_out: tuple[str, ...]
    sha256: str

    def describe(self) -> dict[str, Any]:
        """Return the counts for files and reports, without patient names."""
        return {
            "folds": [fold.counts() for fold in self.folds],
            "left_out": list(self.left_out),
        }


def load_study_data(
    data: Path,
    pretraining: Sequence[Path],
    plan: TrainingPlan,
    folds: int | None,
    cache: Path,
) -> StudyData:
    """Prepare the folders of a study with progress bars, and split the patients.

    Args:
        data: The data set with malignant cases.
        pretraining: Further folders whose benign images all serve pretraining.
        plan: Provides the image size and the seed and shares of the split.
        folds: None: one split, by the plan's shares or the table's own split column. A number:
            cross-validation; the plan's validation share of the other patients chooses the epoch.
        cache: Folder for prepared images.

    Raises:
        DataError: A folder is unusable, or a fold lacks images for some part.
    """
    cohort = _cohort(data, plan, cache)
    others = [_cohort(folder, plan, cache) for folder in pretraining]
    more = [benign_of(other, PARTS) for other in others]
    numbers = {p: i for i, p in enumerate(dict.fromkeys(_patient(p) for p in cohort.images))}
    if folds is None:
        divisions: list[Parts] = [{_patient(p): p.part for p in cohort.images}]
    else:
        divisions = _cross(cohort, plan, folds)
    made = tuple(_fold(cohort.images, parts, numbers, more) for parts in divisions)
    for number, fold in enumerate(made):
        _check(fold, number, data)
    left_out = [*_accounts(cohort, made, divisions), *(_pretrained_on(other) for other in others)]
    left_out += [line for c in (cohort, *others) for line in _left_out(c)]
    return StudyData(made, tuple(left_out), _sha256(cohort.images, divisions, others))


def benign_of(cohort: Cohort, parts: Sequence[Part]) -> StoredSamples:
    """Return a cohort's benign images of some parts."""
    samples = (cohort.samples("benign", part) for part in parts)
    return StoredSamples([image for stored in samples for image in stored.images])


def _cohort(folder: Path, plan: TrainingPlan, cache: Path) -> Cohort:
    site = Site(folder.name, ((folder.name, folder.absolute()),), cache)
    return load_site(site, plan, progress=True).cohorts[0]


def _patient(image: SplitImage) -> str:
    return image.case.row.patient_id


def _cross(cohort: Cohort, plan: TrainingPlan, folds: int) -> list[Parts]:
    """Return one split of the patients per fold."""
    groups = patient_strata([image.case for image in cohort.images])
    evaluation = plan.evaluation
    return [
        draw_fold(
            groups,
            cohort.name,
            evaluation.split_seed,
            evaluation.validation_fraction,
            fold,
            folds,
        )
        for fold in range(folds)
    ]


def _fold(
    placed: Sequence[SplitImage],
    parts: Parts,
    numbers: Mapping[str, int],
    more: Sequence[StoredSamples],
) -> Fold:
    def chosen(purpose: str, part: Part) -> list[SplitImage]:
        return [i for i in placed if purpose in i.case.purposes and parts[_patient(i)] == part]

    test = chosen("malignant", "test")
    return Fold(
        training=StoredSamples(chosen("malignant", "train")),
        validation=StoredSamples(chosen("malignant", "val")),
        test=StoredSamples(test),
        test_patients=tuple(numbers[_patient(image)] for image in test),
        benign=StoredSamples(
            [*chosen("benign", "train"), *(image for stored in more for image in stored.images)]
        ),
    )


def _check(fold: Fold, number: int, folder: Path) -> None:
    for part, count in fold.counts().items():
        if not count:
            where = f"fold {number}: " if number else ""
            advice = "add --pretraining-data" if part == "benign" else "more patients are needed"
            raise DataError(f"{folder}: {where}no image for {part}: {advice}")


def _sha256(
    placed: Sequence[SplitImage], divisions: Sequence[Parts], others: Sequence[Cohort]
) -> str:
    own = [[parts[_patient(image)] for parts in divisions] for image in placed]
    more = [images_sha256(other.images) for other in others]
    return sha256_of([images_sha256(placed), own, more])


def _accounts(cohort: Cohort, folds: Sequence[Fold], divisions: Sequence[Parts]) -> Iterator[str]:
    """Describe, fold by fold, how every row of the data set is used."""
    for number, (fold, parts) in enumerate(zip(folds, divisions, strict=True)):
        benign = sum(
            "benign" in image.case.purposes and parts[_patient(image)] == "train"
            for image in cohort.images
        )
        held_out = (len(fold.validation), len(fold.test))
        account = _account(cohort, len(fold.training) + benign, *held_out)
        where = f", fold {number}" if len(folds) > 1 else ""
        yield f"{cohort.name}{where}: {account.in_words()}"


def _pretrained_on(cohort: Cohort) -> str:
    """Describe how every row of a data set for stage 1 only is used."""
    account = _account(cohort, len(benign_of(cohort, PARTS)))
    return f"{cohort.name}: {account.in_words()}"


def _account(cohort: Cohort, train: int, validation: int = 0, test: int = 0) -> RowAccount:
    rows, rejected = cohort.counts.rows, sum(cohort.counts.rejected.values())
    unused = rows - train - validation - test - rejected
    return RowAccount(rows, train, validation, test, unused, rejected)


def _left_out(cohort: Cohort) -> list[str]:
    counts = cohort.counts
    return [
        f"{cohort.name}: {count} {word}: {reason}"
        for word, reasons in (("rejected", counts.rejected), ("excluded", counts.excluded))
        for reason, count in reasons.items()
    ]
