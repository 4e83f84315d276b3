"""One cohort dealt by patients to virtual hospitals of unlike size."""

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
    """How a cohort is dealt.

    Attributes:
        data: The data set, in any layout.
        shares: Per cent of the patients, one a hospital; 100 together.
        looks: Whether all but the first hospital show their images differently.
        seed: Draws who goes where, and the looks' grain.
    """

    data: Path
    shares: tuple[float, ...]
    looks: bool = False
    seed: int = 0


class Hospital(NamedTuple):
    """A virtual hospital.

    Attributes:
        name: ``site-1`` and so on; also its folder.
        share: Per cent of the patients that it was to get.
        look: How it shows its images.
        patients: Whom it has.
        images: Its usable images by purpose.
    """

    name: str
    share: float
    look: Appearance
    patients: frozenset[str]
    images: Mapping[str, int]

    def values(self) -> dict[str, Any]:
        """Return its counts for JSON; nothing in it names a patient."""
        return {
            "name": self.name,
            "share": self.share,
            "look": self.look._asdict(),
            "patients": len(self.patients),
            "images": dict(self.images),
        }


class DealtCohort(NamedTuple):
    """A cohort and who has which part of it.

    Attributes:
        partition: How it was dealt.
        intake: The cohort.
        hospitals: The virtual hospitals.
        left_out: What the hospitals do not have or use, with counts.
    """

    partition: Partition
    intake: Intake
    hospitals: tuple[Hospital, ...]
    left_out: Mapping[str, int]

    def values(self) -> dict[str, Any]:
        """Return what ``partition.json`` and ``--format json`` hold."""
        return {
            "mamfed_version": __version__,
            "seed": self.partition.seed,
            "looks": self.partition.looks,
            "data_sha256": self._sha256(),
            "hospitals": [hospital.values() for hospital in self.hospitals],
            "left_out": dict(self.left_out),
        }

    def _sha256(self) -> str:
        """Name the images and what the table says of them."""
        said = [(s.row_number, str(s.label), s.split) for s in self.intake.statements]
        images = [(c.row.row_number, c.result.image_sha256) for c in self.intake.accepted]
        return hashlib.sha256(json.dumps([said, images]).encode()).hexdigest()


def deal(partition: Partition) -> DealtCohort:
    """Read a cohort and deal its patients; nothing is written but the user's own cache.

    Raises:
        DataError: The folder cannot be used, or a hospital would have too few patients.
    """
    intake, _ = check(Source(partition.data))
    assert intake is not None, "only a dry run takes nothing in"
    usable = [case for case in intake.accepted if case.purposes]
    if not usable:
        raise DataError(f"{partition.data}: no image can be used; see mamfed-client data check")
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
    """Deal each stratum of patients by the shares; what rounding takes, the next stratum gives.

    Args:
        strata: Disjoint groups of patients.
        shares: Of each hospital, in any unit.
        seed: Draws the order in each stratum.
    """
    share = np.array(shares) / sum(shares)
    owed = np.zeros(len(share))
    dealt: list[set[str]] = [set() for _ in share]
    for stratum in strata:
        for patient in sorted(stratum, key=lambda p: derive_seed(seed, "partition", p)):
            owed += share
            place = int(np.argmax(np.round(owed, 9)))  # equal debts: the first, on any machine
            owed[place] -= 1
            dealt[place].add(patient)
    return [frozenset(patients) for patients in dealt]


def _images(usable: Sequence[AcceptedImage], patients: frozenset[str]) -> dict[str, int]:
    own = [case for case in usable if case.row.patient_id in patients]
    return {purpose: sum(purpose in case.purposes for case in own) for purpose in PURPOSES}


def _left_out(intake: Intake, usable: Sequence[AcceptedImage]) -> dict[str, int]:
    """Count what nobody trains on, by reason."""
    served = {case.row.patient_id for case in usable}
    idle = {s.patient_id for s in intake.statements} - served
    counts = {
        **{f"rejected: {k}": n for k, n in tally(r.reason for r in intake.rejected).items()},
        **{f"left out: {k}": n for k, n in tally(intake.excluded.elements()).items()},
        "patients without a usable image": len(idle),
    }
    return {reason: count for reason, count in counts.items() if count}
