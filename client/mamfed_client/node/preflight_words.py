"""Counts of a site's images and patients in words, for ``mamfed-client preflight``."""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.domain import Purpose
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.wording import counted


def kinds_in_words(used: Mapping[Purpose, int]) -> str:
    """Return the number of images of each kind, in words."""
    counts = [f"{count} {kind.replace('_', ' ')}" for kind, count in used.items()]
    images = counted(sum(used.values()), "image")
    return f"{' and '.join(counts)} {images.partition(' ')[2]}" if len(counts) else images


def kept_scores(description: SiteDescription, minimum: int) -> str:
    """Return which parts have too few patients for their scores to leave, in words."""
    patients = description.patients.get("malignant", {})
    counts = {"validation": patients.get("val", 0), "test": patients.get("test", 0)}
    few = [f"{counted(n, f'{part} patient')}" for part, n in counts.items() if 0 < n < minimum]
    if not few:
        return ""
    return f"; scores of {' and '.join(few)} stay here (min_patients_to_report is {minimum})"
