"""Patients -> train, val or test. A patient is never in two parts."""

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
"""What a table's split column may say, in any case."""

FEWEST = 3
"""Fewer patients of a vendor cannot be in all three parts, so small vendors are drawn together."""


def declared_parts(statements: Sequence[PatientStatement]) -> dict[str, Part] | None:
    """Take the split that the table itself declares.

    Returns:
        Patient -> part, or None where the table has no split column or leaves it empty.

    Raises:
        DataError: Some cells are empty or unknown, or a patient is in two parts. The message names
            rows, never a patient.
    """
    statements = [replace(s, split=plain(s.split).lower()) for s in statements]
    if not any(statement.split for statement in statements):
        return None
    empty = [s.row_number for s in statements if not s.split]
    if empty:
        raise DataError(
            f"column 'split' is filled on some rows but empty on rows {some_rows(empty, most=10)}"
        )
    unknown = [s.row_number for s in statements if s.split not in SPELLINGS]
    if unknown:
        raise DataError(
            f"column 'split' is none of train, val, test on rows {some_rows(unknown, most=10)}"
        )
    first: dict[str, PatientStatement] = {}
    for statement in statements:
        earlier = first.setdefault(statement.patient_id, statement)
        if SPELLINGS[earlier.split] != SPELLINGS[statement.split]:
            pair = [earlier.row_number, statement.row_number]
            raise DataError(
                f"column 'split' puts one patient in two parts: rows {some_rows(pair, most=10)}; "
                "patients whose spellings, files or pictures are alike are one"
            )
    return {patient: SPELLINGS[s.split] for patient, s in first.items()}


def strata(rows: Iterable[tuple[str, int, str]]) -> list[set[str]]:
    """Group patients by the rarest purpose they serve and by vendor, so each part gets some of all.

    Args:
        rows: One an image: its patient, how common the rarest purpose is that it serves, 0 being
            the rarest of all, and the vendor of the unit.

    Returns:
        Disjoint groups, those of rare purposes first. Of each purpose, one a vendor of at least
        ``FEWEST`` patients, and one of the others. Whoever has images of several vendors that serve
        her rarest purpose counts for the first vendor by name.
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
    large = [by_vendor[vendor] for vendor in sorted(by_vendor) if len(by_vendor[vendor]) >= FEWEST]
    others = set(vendors).difference(*large)
    return [*large, others] if others else large


def draw_parts(
    strata: Iterable[Collection[str]],
    cohort: str,
    seed: int,
    val_fraction: float,
    test_fraction: float,
) -> dict[str, Part]:
    """Split each stratum of patients by itself, so that each part gets some of each.

    Patients are ordered by a hash of seed, cohort and patient: the order of rows does not matter.
    A stratum of two or more gives the test part at least one patient, one of three or more also
    the val part, where these have a fraction at all. Training keeps at least one.

    Args:
        strata: Disjoint groups of patients.
        cohort: The cohort's name; two cohorts with equal patient ids split independently.
        seed: The plan's seed.
        val_fraction: Share of the patients for validation, 0..1.
        test_fraction: Share of the patients for testing, 0..1; both together below 1.

    Raises:
        DataError: The fractions leave nothing to train on.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise DataError("val and test fractions must be 0 or more and below 1 together")
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
    """Split patients for one of ``folds`` runs that together test everybody once.

    Args:
        strata: Disjoint groups of patients; each is dealt out to the folds by itself.
        cohort: As of :func:`draw_parts`.
        seed: The plan's seed.
        val_fraction: Share for validation of the patients that this fold does not test, 0..1.
        fold: Which run, from 0.
        folds: How many there are.

    Raises:
        DataError: There are fewer patients than folds.
    """
    dealt: dict[str, int] = {}
    for group in strata:
        ordered = sorted(group, key=lambda patient: derive_seed(seed, "fold", cohort, patient))
        dealt |= {patient: (len(dealt) + i) % folds for i, patient in enumerate(ordered)}
    if len(dealt) < folds:
        raise DataError(
            f"{cohort}: {counted(len(dealt), 'patient')} for {folds} folds, so some fold would "
            "test nobody there; ask for fewer folds"
        )
    rest = [{patient for patient in group if dealt[patient] != fold} for group in strata]
    parts = draw_parts(rest, f"{cohort} fold {fold}", seed, val_fraction, 0.0)
    return parts | {patient: "test" for patient, where in dealt.items() if where == fold}


def _share(patients: int, fraction: float, enough: int) -> int:
    """Round a share to whole patients: at least one of ``enough``, never all of them."""
    least = 1 if patients >= enough and fraction > 0 else 0
    return min(max(least, round(patients * fraction)), max(0, patients - 1))
