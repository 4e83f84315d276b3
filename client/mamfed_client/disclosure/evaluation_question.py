"""What a result over images depends on: which images, of whom, in which part, for what."""

from __future__ import annotations

from collections.abc import Sequence

from mamfed_client.preparation.cohort import SplitImage
from mamfed_client.preparation.site_data import SiteData
from mamfed_common.runtime.fingerprint import sha256_of


def images_sha256(placed: Sequence[SplitImage], *, facts: bool = False) -> str:
    """Name images by all that a figure over them depends on; no patient or file is in it.

    A sample's name stands for the bytes of image and mask, the side, the size and the code that
    prepared it; which images belong to one patient is told by numbers.

    Args:
        placed: The images in their order.
        facts: Whether what divides images into strata counts, too.
    """
    numbers: dict[str, int] = {}
    said = []
    for image in placed:
        case = image.case
        patient = numbers.setdefault(case.row.patient_id, len(numbers))
        line = [case.outcome.digest, image.part, sorted(case.purposes), patient]
        if facts:
            row = case.row
            line += [row.vendor, row.density, row.kind, row.view, row.laterality, row.spacing_mm]
        said.append(line)
    return sha256_of(said)


def site_sha256(data: SiteData) -> str:
    """Name all images of a site that a training or its results depend on."""
    return sha256_of([[cohort.name, images_sha256(cohort.placed)] for cohort in data.cohorts])
