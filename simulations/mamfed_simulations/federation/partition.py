"""Split one cohort by patient among virtual hospitals of different sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mamfed_client.preparation.cohort import patient_strata, tally
from mamfed_client.preparation.commands import Source, check
from mamfed_client.preparation.ingest import AcceptedImage, Intake
from mamfed_client.preparation.patient_split import MIN_VENDOR_PATIENTS
from mamfed_common import __version__
from mamfed_common.domain import PURPOSES
from mamfed_common.errors import DataError
from mamfed_common.runtime.seeds import derive_seed
from mamfed_simulations.federation.appearance import ORIGINAL, Appearance, looks_of


@dataclass(frozen=True)
class Partition:
    """How to split a cohort.

    Attributes:
        data: The data set, in any layout.
        shares: Percentage of the patients per hospital, adding up to 100.
        looks: Whether every hospital but the first gets its own image appearance.
        seed: Seed of the split and of the looks' grain.
    """

    data: Path
    shares: tuple[float, ...]
    looks: bool = False
    seed: int = 0


class Hospital(NamedTuple):
    """A virtual hospital.

    Attributes:
        name: ``site-1`` and so on; also the name of its folder.
        share: Requested percentage of the patients.
        look: Appearance of its images.
        patients: Its patients.
        images: Number of usable images by purpose.
    """

    name: str
    share: float
    look: Appearance
    patients: frozenset[str]
    images: Mapping[str, int]

    def values(self) -> dict[str, Any]:
        """Return its counts for JSON, without patient names."""
        return {
            "name": self.name,
            "share": self.share,
            "look": self.look._asdict(),
            "patients": len(self.patients),
            "images": dict(self.images),
        }


class DealtCohort(NamedTuple):
    """A cohort that was split among virtual hospitals.

    Attributes:
        partition: How it was split.
        intake: The cohort.
        hospitals: The virtual hospitals.
        left_out: Rejected, excluded and unused material, with counts.
    """

    partition: Partition
    intake: Intake
    hospitals: tuple[Hospital, ...]
    left_out: Mapping[str, int]

    def values(self) -> dict[str, Any]:
        """Return the content of ``partition.json`` and of ``--format json``."""
        return {
            "mamfed_version": __version__,
            "seed": self.partition.seed,
            "looks": self.partition.looks,
            "data_sha256": self._sha256(),
            "hospitals": [hospital.values() for hospital in self.hospitals],
            "left_out": dict(self.left_out),
        }

    def _sha256(self) -> str:
        """Return a hash over the images and their labels."""
        labels = [(s.row_number, str(s.label), s.split) for s in self.intake.statements]
        images = [(c.row.row_number, c.result.image_sha256) for c in self.intake.accepted]
        return hashlib.sha256(json.dumps([labels, images]).encode()).hexdigest()


def deal(partition: Partition) -> DealtCohort:
    """Read a cohort and split its patients; write nothing but the user's own cache.

    Raises:
        DataError: The folder cannot be used, or a hospital would have too few patients.
    """
    intake, _ = check(Source(partition.data))
    assert intake is not None, "only a dry run reads no images"
    usable = [case for case in intake.accepted if case.purposes]
    if not usable:
        raise DataError(f"{partition.data}: no usable image; see mamfed-client data check")
    places = deal_patients(patient_strata(usable), partition.shares, partition.seed)
    looks = looks_of(len(places), partition.seed) if partition.looks else [ORIGINAL] * len(places)
    hospitals = tuple(
        Hospital(f"site-{i}", share, look, patients, _images(usable, patients))
        for i, (share, look, patients) in enumerate(
            zip(partition.shares, looks, places, strict=True), start=1
        )
    )
    for hospital in hospitals:
        if len(hospital.patients) < MIN_VENDOR_PATIENTS:
            raise DataError(
                f"{partition.data}: {hospital.name} would get {len(hospital.patients)} of "
                f"{sum(map(len, places))} patients, but needs {MIN_VENDOR_PATIENTS} to train, "
                "validate and test; ask for fewer sites or a larger share"
            )
    return DealtCohort(partition, intake, hospitals, _left_out(intake, usable))


def deal_patients(
    strata: Sequence[set[str]], shares: Sequence[float], seed: int
) -> list[frozenset[str]]:
    """Split each stratum of patients by the shares; rounding errors carry over between strata.

    Args:
        strata: Disjoint groups of patients.
        shares: Share of each hospital, in any unit.
        seed: Seed of the order within each stratum.
    """
    share = np.array(shares) / sum(shares)
    owed = np.zeros(len(share))
    dealt: list[set[str]] = [set() for _ in share]
    for stratum in strata:
        for patient in sorted(stratum, key=lambda p: derive_seed(seed, "partition", p)):
            owed += share
            place = int(np.argmax(np.round(owed, 9)))  # ties go to the first, on any machine
            owed[place] -= 1
            dealt[place].add(patient)
    return [frozenset(patients) for patients in dealt]


def _images(usable: Sequence[AcceptedImage], patients: frozenset[str]) -> dict[str, int]:
    own = [case for case in usable if case.row.patient_id in patients]
    return {purpose: sum(purpose in case.purposes for case in own) for purpose in PURPOSES}


def _left_out(intake: Intake, usable: Sequence[AcceptedImage]) -> dict[str, int]:
    """Count rejected, excluded and unused material by reason."""
    served = {case.row.patient_id for case in usable}
    idle = {s.patient_id for s in intake.statements} - served
    counts = {
        **{f"rejected: {k}": n for k, n in tally(r.reason for r in intake.rejected).items()},
        **{f"left out: {k}": n for k, n in tally(intake.excluded.elements()).items()},
        "patients without a usable image": len(idle),
    }
    return {reason: count for reason, count in counts.items() if count}
