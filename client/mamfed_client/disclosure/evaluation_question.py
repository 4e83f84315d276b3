"""Hashes that identify the images, patients and parts on which a result depends."""

from __future__ import annotations

from collections.abc import Sequence

from mamfed_client.preparation.cohort import SplitImage
from mamfed_client.preparation.site_data import SiteData
from mamfed_common.runtime.fingerprint import sha256_of


def images_sha256(placed: Sequence[SplitImage], *, facts: bool = False) -> str:
    """Hash everything about images on which a score depends, without naming patients or files.

    A sample's digest covers the bytes of image and mask, the side, the size and the code that
    prepared it. Numbers tell which images belong to the same patient.

    Args:
        placed: The images in their order.
        facts: Whether to include the attributes that define strata.
    """
    numbers: dict[str, int] = {}
    lines = []
    for image in placed:
        case = image.case
        patient = numbers.setdefault(case.row.patient_id, len(numbers))
        line = [case.result.digest, image.part, sorted(case.purposes), patient]
        if facts:
            row = case.row
            line += [row.vendor, row.density, row.kind, row.view, row.laterality, row.spacing_mm]
        lines.append(line)
    return sha256_of(lines)


def site_sha256(data: SiteData) -> str:
    """Hash all images of a site on which a training or its results depend."""
    return sha256_of([[cohort.name, images_sha256(cohort.images)] for cohort in data.cohorts])
