"""Sentences that compare two models site by site, losses included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mamfed_common.metrics.small_numbers import FEW_IMAGES, FEW_PATIENTS, is_few
from mamfed_common.runtime.wording import counted


class Gain(NamedTuple):
    """One model's mean Dice minus another's, on the same images of a site.

    Attributes:
        site: The site.
        value: The difference.
        low: Lower end of its 95 % interval over patients; None if there is none.
        high: Upper end of the interval; None if there is none.
        images: Number of images.
        patients: Number of their patients; None if unknown.
    """

    site: str
    value: float
    low: float | None
    high: float | None
    images: int
    patients: int | None = None

    @property
    def is_few(self) -> bool:
        """Whether it rests on too few images or patients to be told from chance."""
        return is_few(self.images, self.patients)

    @property
    def holds_zero(self) -> bool:
        """Whether its interval contains 0, so that the difference may be chance."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def compared(model: str, other: str, gains: Sequence[Gain], digits: int = 3) -> list[str]:
    """Return sentences on where a model scored lower or higher than another, with caveats.

    Args:
        model: Name of the model, such as ``The shared model``.
        other: Name of the other model, such as ``local training``.
        gains: One per site where both were measured; no sentences if empty.
        digits: Decimals shown; differences that round to 0 count as equal.
    """
    if not gains:
        return []
    rounded = {s.site: round(s.value, digits) for s in gains}
    groups = {
        "lower than": sorted((s for s in gains if rounded[s.site] < 0), key=lambda s: s.value),
        "the same as": [s for s in gains if not rounded[s.site]],
        "higher than": sorted((s for s in gains if rounded[s.site] > 0), key=lambda s: -s.value),
    }
    parts = [
        f"{words} {other} at {_how_many(len(own), len(gains))}: "
        + "; ".join(_described(s, digits) for s in own)
        for words, own in groups.items()
        if own
    ]
    return [f"{model} scored {'; '.join(parts)}.", *_caveats(gains)]


def _how_many(count: int, total: int) -> str:
    if count < total:
        return f"{count} of {total} sites"
    return {1: "the one site", 2: "both sites"}.get(total, f"all {total} sites")


def _described(gain: Gain, digits: int) -> str:
    ends = ""
    if gain.low is not None and gain.high is not None:
        ends = f" [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"
    patients = "" if gain.patients is None else f" of {counted(gain.patients, 'patient')}"
    images = counted(gain.images, "image")
    return f"{gain.site} {gain.value:+.{digits}f}{ends} ({images}{patients})"


def _caveats(gains: Sequence[Gain]) -> list[str]:
    """Return sentences on the differences that may be chance."""
    few = [s.site for s in gains if s.is_few]
    open_ends = [s.site for s in gains if s.holds_zero and not s.is_few]
    lines = []
    if few:
        where = "at any site" if len(few) == len(gains) > 1 else f"at {', '.join(few)}"
        lines.append(
            f"Too few images to tell {where}: fewer than {FEW_IMAGES} images or {FEW_PATIENTS} "
            "patients."
        )
    if open_ends:
        lines.append(f"May be chance at {', '.join(open_ends)}: the interval contains 0.")
    return lines
