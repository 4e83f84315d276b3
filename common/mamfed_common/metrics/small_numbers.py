"""When a figure stands on so little that it says little; said beside it wherever it is shown.

A cluster bootstrap over a handful of patients draws the same few again and again: its interval is
too narrow, whether it holds 0 or not (Davison and Hinkley, 1997, 2.5.2).
"""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.runtime.wording import counted

FEW_IMAGES = 10
"""A figure over fewer images is flagged."""
FEW_PATIENTS = 10
"""An interval over fewer patients is flagged."""
UNEVEN = 10
"""A mean over sites is flagged where one has so many times the images of another."""
MARK = "*"
"""Behind a flagged interval."""
MARK_MEANS = (
    f"{MARK} over fewer than {FEW_PATIENTS} patients: such an interval is too narrow, and says "
    "little even where it does not hold 0"
)


def is_few(images: int, patients: int | None = None) -> bool:
    """Tell whether a figure stands on too little to be told from chance."""
    return images < FEW_IMAGES or few_patients(patients)


def few_patients(patients: int | None) -> bool:
    """Tell whether an interval stands on too few patients; None: it is not known on how many."""
    return patients is not None and patients < FEW_PATIENTS


def cautions(images: Mapping[str, int]) -> list[str]:
    """Say what to know of a mean over sites, each of which counts once.

    Args:
        images: Behind each site's figure; sites without one are left out.
    """
    known = {site: count for site, count in images.items() if count}
    lines = []
    if few := sorted(site for site, count in known.items() if count < FEW_IMAGES):
        behind = ", ".join(f"{site} ({counted(known[site], 'image')})" for site in few)
        lines.append(f"Fewer than {FEW_IMAGES} images stand behind the figure of {behind}.")
    if len(known) > 1:
        least, most = (choose(known, key=lambda s: known[s]) for choose in (min, max))
        if known[most] >= UNEVEN * known[least] or (few and known[most] > known[least]):
            lines.append(
                f"The mean over sites counts {least} with {counted(known[least], 'image')} as much "
                f"as {most} with {counted(known[most], 'image')}."
            )
    return lines
