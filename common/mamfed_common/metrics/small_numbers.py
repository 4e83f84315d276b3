"""Flags for results that rest on too few images or patients, shown wherever such a result is.

A cluster bootstrap over a handful of patients resamples the same few again and again, so its
interval is too narrow, whether or not it contains 0 (Davison and Hinkley, 1997, 2.5.2).
"""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.runtime.wording import counted

FEW_IMAGES = 10
"""A result over fewer images is flagged."""
FEW_PATIENTS = 10
"""An interval over fewer patients is flagged."""
UNEVEN = 10
"""A mean over sites is flagged if one has at least this many times the images of another."""
MARK = "*"
"""Follows a flagged interval."""
MARK_MEANS = (
    f"{MARK} over fewer than {FEW_PATIENTS} patients: such an interval is too narrow, and means "
    "little even if it does not contain 0"
)


def is_few(images: int, patients: int | None = None) -> bool:
    """Return whether a result rests on too few images or patients to be told from chance."""
    return images < FEW_IMAGES or few_patients(patients)


def few_patients(patients: int | None) -> bool:
    """Return whether an interval rests on too few patients; False if their number is unknown."""
    return patients is not None and patients < FEW_PATIENTS


def cautions(images: Mapping[str, int]) -> list[str]:
    """Return warnings about an unweighted mean over sites, one per line.

    Args:
        images: Images behind each site's result; sites without an image are ignored.
    """
    known = {site: count for site, count in images.items() if count}
    lines = []
    if few := sorted(site for site, count in known.items() if count < FEW_IMAGES):
        sites = ", ".join(f"{site} ({counted(known[site], 'image')})" for site in few)
        lines.append(f"Results over fewer than {FEW_IMAGES} images: {sites}.")
    if len(known) > 1:
        least, most = (choose(known, key=lambda s: known[s]) for choose in (min, max))
        if known[most] >= UNEVEN * known[least] or (few and known[most] > known[least]):
            lines.append(
                f"The mean over sites gives {least} with {counted(known[least], 'image')} the same "
                f"weight as {most} with {counted(known[most], 'image')}."
            )
    return lines
