"""Assign patients to train, val or test. A patient is never in two parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mamfed_client.datasets.manifest import PatientStatement, some_rows
from mamfed_common.domain import Part
from mamfed_common.errors import DataError
from mamfed_common.runtime.seeds import derive_seed
from mamfed_common.runtime.text import plain
from mamfed_common.runtime.wording import counted

SPELLINGS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Accepted values of a table's split column; upper or lower case."""

MIN_VENDOR_PATIENTS = 3
"""Fewer patients of a vendor cannot be in all three parts, so small vendors are drawn together."""


def declared_parts(statements: Sequence[PatientStatement]) -> dict[str, Part] | None:
    """Return the split declared in the table.

    Returns:
        The part of each patient, or None if the table has no split column or leaves it empty.

    Raises:
        DataError: Some cells are empty or not valid, or a patient is in two parts. The message
            names rows, never a patient.
    """
    statements = [replace(s, split=plain(s.split).lower()) for s in statements]
    if not any(statement.split for statement in statements):
        return None
    empty = [s.row_number for s in statements if not s.split]
    if empty:
        raise DataError(
            "column 'split' is filled in some rows but empty in rows "
            f"{some_rows(empty, most=10)}; fill all of them or none"
        )
    unknown = [s.row_number for s in statements if s.split not in SPELLINGS]
    if unknown:
        raise DataError(
            "column 'split' must be train, val or test; it is something else in rows "
            f"{some_rows(unknown, most=10)}"
        )
    first: dict[str, PatientStatement] = {}
    for statement in statements:
        earlier = first.setdefault(statement.patient_id, statement)
        if SPELLINGS[earlier.split] != SPELLINGS[statement.split]:
            pair = [earlier.row_number, statement.row_number]
            raise DataError(
                f"column 'split' puts one patient in two parts: rows {some_rows(pair, most=10)}; "
                "patients who share a spelling, a file's Patient ID or a picture count as one"
            )
    return {patient: SPELLINGS[s.split] for patient, s in first.items()}


def strata(rows: Iterable[tuple[str, int, str]]) -> list[set[str]]:
    """Group patients by their rarest purpose and by vendor, so that every part gets some of each.

    Args:
        rows: One tuple per image: the patient, the rank of the rarest purpose the image serves (0
            is the rarest), and the vendor of the unit.

    Returns:
        Disjoint groups, rarest purposes first. Each purpose has one group per vendor with at least
        ``MIN_VENDOR_PATIENTS`` patients, and one group for all other vendors. A patient whose
        rarest purpose is served by images of several vendors counts for the first vendor by name.
    """
    rarest: dict[str, tuple[int, str]] = {}
    for patient, rank, vendor in rows:
        rarest[patient] = min((rank, vendor), rarest.get(patient, (rank, vendor)))
    by_rank: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for patient, (rank, vendor) in rarest.items():
        by_rank[rank][patient] = vendor
    return [group for rank in sorted(by_rank) for group in _by_vendor(by_rank[rank])]


def _by_vendor(vendors: dict[str, str]) -> list[set[str]]:
    by_vendor: defaultdict[str, set[str]] = defaultdict(set)
    for patient, vendor in vendors.items():
        by_vendor[vendor].add(patient)
    groups = [by_vendor[vendor] for vendor in sorted(by_vendor)]
    large = [group for group in groups if len(group) >= MIN_VENDOR_PATIENTS]
    others = set(vendors).difference(*large)
    return [*large, others] if others else large


def draw_parts(
    strata: Iterable[Collection[str]],
    cohort: str,
    seed: int,
    val_fraction: float,
    test_fraction: float,
) -> dict[str, Part]:
    """Split each stratum of patients separately, so that every part gets some of each.

    Patients are ordered by a hash of seed, cohort and patient: the order of rows does not matter.
    A stratum of two or more patients gives at least one to the test part, and one of three or more
    also gives at least one to the val part, unless that part's fraction is 0. At least one patient
    stays in training.

    Args:
        strata: Disjoint groups of patients.
        cohort: The cohort's name; cohorts with equal patient ids are split independently.
        seed: The plan's seed.
        val_fraction: Fraction of the patients for validation, 0..1.
        test_fraction: Fraction of the patients for testing, 0..1; the two must sum to less than 1.

    Raises:
        DataError: The fractions leave no patients for training.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise DataError("val and test fractions must be at least 0 and sum to less than 1")
    parts: dict[str, Part] = {}
    for patients in strata:
        ordered = sorted(patients, key=lambda patient: derive_seed(seed, "split", cohort, patient))
        n_test = _share(len(ordered), test_fraction, enough=2)
        n_val = min(_share(len(ordered), val_fraction, enough=3), max(0, len(ordered) - n_test - 1))
        parts |= dict.fromkeys(ordered, "train")
        parts |= dict.fromkeys(ordered[:n_test], "test")
        parts |= dict.fromkeys(ordered[n_test : n_test + n_val], "val")
    return parts


def draw_fold(
    strata: Sequence[Collection[str]],
    cohort: str,
    seed: int,
    val_fraction: float,
    fold: int,
    folds: int,
) -> dict[str, Part]:
    """Split patients for one of ``folds`` runs that together test every patient once.

    Args:
        strata: Disjoint groups of patients; each is distributed over the folds separately.
        cohort: The cohort's name, as in :func:`draw_parts`.
        seed: The plan's seed.
        val_fraction: Fraction for validation of the patients that this fold does not test, 0..1.
        fold: Index of the run, from 0.
        folds: Number of folds.

    Raises:
        DataError: There are fewer patients than folds.
    """
    fold_of: dict[str, int] = {}
    for group in strata:
        ordered = sorted(group, key=lambda patient: derive_seed(seed, "fold", cohort, patient))
        fold_of |= {patient: (len(fold_of) + i) % folds for i, patient in enumerate(ordered)}
    if len(fold_of) < folds:
        raise DataError(
            f"{cohort}: {counted(len(fold_of), 'patient')} for {folds} folds, so at least one fold "
            "would have no test patient; use fewer folds"
        )
    rest = [{patient for patient in group if fold_of[patient] != fold} for group in strata]
    parts = draw_parts(rest, f"{cohort} fold {fold}", seed, val_fraction, 0.0)
    return parts | {patient: "test" for patient, index in fold_of.items() if index == fold}


def _share(patients: int, fraction: float, enough: int) -> int:
    """Round a fraction to whole patients: at least one of ``enough`` or more, but never all."""
    least = 1 if patients >= enough and fraction > 0 else 0
    return min(max(least, round(patients * fraction)), max(0, patients - 1))
