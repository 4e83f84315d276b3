"""The charts on the page of a check: which properties are counted and measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mamfed_client.datasets.mias import TISSUES
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.review.contact_sheet import ImagePicture
from mamfed_client.review.distributions import (
    Bars,
    Histogram,
    bars,
    grey_histograms,
    histogram,
    log_histogram,
)

SMALLEST_MM, LARGEST_MM = 1e-6, 1e6
"""Spacings beyond these limits are not plausible, and are clipped so that a chart can be drawn."""

BIRADS_DENSITY = "A to D are BI-RADS densities: A almost all fat, D extremely dense."
MIAS_DENSITY = (
    "fatty, fatty-glandular and dense-glandular are the three classes of MIAS (its F, G and D); "
    "they are not BI-RADS densities: MIAS' D is not BI-RADS' D."
)
OTHER_DENSITY = "Other terms are the table's own."


def counts_by_property(document: dict[str, Any], cases: Sequence[AcceptedImage]) -> list[Bars]:
    """Return a bar chart of the accepted images for each property.

    Args:
        document: The counts of ``summarise_intake``.
        cases: The accepted images.
    """
    without = document["without_spacing"]
    groups = {
        "Vendor": document["vendors"],
        "View": document["views"],
        "View read from": document["view_from"],
        "Side": document["lateralities"],
        "Side read from": document["laterality_from"],
        "Breast density": document["densities"],
        "Label": document["labels"],
        "Pixel spacing": {"known": len(cases) - without, "unknown": without},
        "Lesion outlined": _outlines(cases),
    }
    notes = {"Breast density": _density_note(document["densities"])}
    return [bars(title, counts, notes.get(title, "")) for title, counts in groups.items()]


def _density_note(counts: Mapping[str, int]) -> str:
    """Explain the density scales that occur in the counts."""
    words = counts.keys() - {"unknown"}
    scales = {
        BIRADS_DENSITY: words & set("ABCD"),
        MIAS_DENSITY: words & {*TISSUES.values(), "F", "G"},
    }
    others = words - set().union(*scales.values())
    notes = [text for text, matches in scales.items() if matches]
    return " ".join([*notes, OTHER_DENSITY] if others else notes)


def _outlines(cases: Iterable[AcceptedImage]) -> dict[str, int]:
    counts = {"on the image's grid": 0, "on another, resampled": 0, "not outlined": 0}
    as_drawn, resampled, none = counts
    for case in cases:
        outlined = as_drawn if not case.result.resampled else resampled
        counts[outlined if case.result.lesion_share > 0 else none] += 1
    return counts


def grey_levels(drawn: Iterable[ImagePicture]) -> list[Histogram]:
    """Return the mean grey-level histogram of each vendor's drawn images."""
    levels = defaultdict(list)
    for picture in sorted(drawn, key=lambda d: d.case.row.vendor or "unknown"):
        levels[picture.case.row.vendor or "unknown"].append(picture.levels)
    return grey_histograms(levels)


def distributions(cases: Sequence[AcceptedImage], drawn: Sequence[ImagePicture]) -> list[Histogram]:
    """Return histograms over all images; the breast's share is known only for drawn images."""
    shares, spacings_mm = _lesion_shares(cases), _spacings_mm(cases)
    areas_mm2 = {
        row: shares[row] * c.result.rows * c.result.columns * spacings_mm[row] ** 2
        for c in cases
        if (row := c.row.row_number) in shares and row in spacings_mm
    }
    drawings = [
        histogram("Image height", {c.row.row_number: c.result.rows for c in cases}, " px"),
        histogram("Pixel spacing", spacings_mm, " mm"),
        histogram(
            "Breast, share of the image",
            {d.case.row.row_number: 100 * d.breast_share for d in drawn},
            "%",
        ),
        log_histogram("Lesion, share of the image", {r: 100 * s for r, s in shares.items()}, "%"),
        log_histogram("Lesion area", areas_mm2, " mm²"),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _lesion_shares(cases: Iterable[AcceptedImage]) -> dict[int, float]:
    return {c.row.row_number: c.result.lesion_share for c in cases if c.result.lesion_share > 0}


def _spacings_mm(cases: Iterable[AcceptedImage]) -> dict[int, float]:
    """Return the spacings by row, clipped so that their squares stay finite and above 0."""
    return {
        c.row.row_number: min(max(c.row.spacing_mm, SMALLEST_MM), LARGEST_MM)
        for c in cases
        if c.row.spacing_mm is not None
    }
