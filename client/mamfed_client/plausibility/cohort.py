"""Checks across all images of a site, for errors that no single image reveals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.plausibility.measures import Measures

MIN_GROUP = 5
"""Minimum number of images in a group for any conclusion."""
MIN_VENDOR_SHARE = 0.9
"""Share of a vendor's images that must be saturated."""
PLAIN_SHARE = 0.25
"""Share of a breast at one grey level; the maximum in real images is 0.19."""
MIN_SAME_DIRECTION = 0.9
"""Share of the breasts of one side that must point the same way; at real sites all of them do, or
at most 67 of 80."""
MIN_ALIKE = 0.8
"""Share of masks that must have the same size."""
MAX_PLACEHOLDER_FIT = 0.5
"""Masks that fit bright areas better than this are real; placeholders reach 0.3 or less."""
USUAL_MASK_SHARE = 0.02
"""Share of the breast that the median mask of a data set covers: 0.007 to 0.03 in seven film and
phantom data sets, 0.11 in one with advanced cancers."""
MAX_RATIO = 20
"""Maximum ratio of the median mask share to the usual one."""


class CohortMember(NamedTuple):
    """An image of a site with its measurements.

    Attributes:
        row_number: Row in the site's table or listing.
        vendor: Manufacturer of the unit; None if unknown.
        laterality: Left or right breast; None if unknown.
        measures: Measurements of the image and its mask.
        reviewed: Whether a person has reviewed and confirmed it.
    """

    row_number: int
    vendor: str | None
    laterality: Laterality | None
    measures: Measures
    reviewed: bool = False


def judge_cohort(members: Sequence[CohortMember]) -> dict[int, Doubts]:
    """Return the doubts about each image that arise from comparison with the others, by row."""
    doubts: defaultdict[int, Doubts] = defaultdict(tuple)
    for check in CHECKS:
        for number, doubt in check(members):
            doubts[number] += (doubt,)
    return dict(doubts)


DoubtfulRows = Iterable[tuple[int, Doubtful]]


def masks_alike(members: Sequence[CohortMember]) -> DoubtfulRows:
    """Doubt masks if most have the same area and bounding box, and do not fit bright areas."""
    masked = [m for m in members if m.measures.mask_pixels]
    sizes = Counter(_size(m.measures) for m in masked)
    if len(masked) < MIN_GROUP:
        return []
    size, count = sizes.most_common(1)[0]
    alike = [m for m in masked if _size(m.measures) == size]
    loose = median(m.measures.mask_fit for m in alike) < MAX_PLACEHOLDER_FIT
    if count < max(MIN_GROUP, MIN_ALIKE * len(masked)) or not loose:
        return []
    return _doubt_all(alike, Doubtful(Doubt.MASKS_ALIKE, f"{count} of {len(masked)} masks"))


def masks_large(members: Sequence[CohortMember]) -> DoubtfulRows:
    """Doubt the masks of a vendor, or site, that cover many times as much as others."""
    masked = [m for m in members if m.measures.mask_pixels]
    groups = _group_by(masked, lambda m: m.vendor)
    for vendor, group in groups.items():
        others = [m for m in masked if m.vendor != vendor]
        usual = _median_share(others) if len(others) >= MIN_GROUP else USUAL_MASK_SHARE
        times = _median_share(group) / usual
        if len(group) >= MIN_GROUP and times >= MAX_RATIO:
            beside = "other vendors'" if len(others) >= MIN_GROUP else "usual ones"
            yield from _doubt_all(group, Doubtful(Doubt.MASKS_LARGE, f"{times:.0f} times {beside}"))


def compare_sites(sites: Mapping[str, Sequence[CohortMember]]) -> tuple[str, ...]:
    """Report sites of a simulation whose data differ from the others' more than correct data do.

    In a real federation, hospitals do not see each other's masks; each is compared with
    ``USUAL_MASK_SHARE`` instead.

    Returns:
        A sentence with figures for each site whose masks cover many times as much as all others',
        and for each vendor at a site nearly all of whose images are saturated.
    """
    notes = []
    masked = {name: [m for m in some if m.measures.mask_pixels] for name, some in sites.items()}
    for name, own in masked.items():
        others = [m for other, some in masked.items() if other != name for m in some]
        if min(len(own), len(others)) < MIN_GROUP or all(m.reviewed for m in own):
            continue
        if _median_share(own) >= MAX_RATIO * _median_share(others):
            notes.append(
                f"{name}: its masks cover {_median_share(own):.1%} of the breast (median of "
                f"{len(own)}), those of the other sites {_median_share(others):.1%}; they may mark "
                "another class, or more than the finding: review them before training"
            )
    for name, members in sites.items():
        doubts = dict(vendor_saturated([m for m in members if not m.reviewed]))
        for vendor, group in _group_by(members, lambda m: m.vendor).items():
            doubted = [m for m in group if m.row_number in doubts]
            if doubted:
                notes.append(
                    f"{name}: {doubts[doubted[0].row_number].detail} by "
                    f"{vendor or 'an unknown vendor'} have much of the breast at one grey level: "
                    "their export may be wrong"
                )
    return tuple(notes)


def vendor_saturated(members: Sequence[CohortMember]) -> DoubtfulRows:
    """Doubt a vendor's images if nearly all have much of the breast at one grey level."""
    for group in _group_by(members, lambda m: m.vendor).values():
        share = sum(m.measures.plain_share >= PLAIN_SHARE for m in group) / len(group)
        if len(group) >= MIN_GROUP and share >= MIN_VENDOR_SHARE:
            yield from _doubt_all(
                group, Doubtful(Doubt.SATURATED_VENDOR, f"{share:.0%} of its images")
            )


def mirrored(members: Sequence[CohortMember]) -> DoubtfulRows:
    """Doubt a breast that points in the opposite direction to most of its vendor and side."""
    known = [m for m in members if m.laterality and m.measures.chest_wall]
    for group in _group_by(known, lambda m: (m.vendor, m.laterality)).values():
        (usual, count), *_ = Counter(m.measures.chest_wall for m in group).most_common(1)
        if len(group) >= MIN_GROUP and MIN_SAME_DIRECTION * len(group) <= count < len(group):
            others = [m for m in group if m.measures.chest_wall != usual]
            yield from _doubt_all(
                others, Doubtful(Doubt.MIRRORED, f"unlike {count} of {len(group)}")
            )


def _size(measures: Measures) -> tuple[int, int, int]:
    return measures.mask_pixels, measures.mask_rows, measures.mask_columns


def _median_share(members: Iterable[CohortMember]) -> float:
    return median(m.measures.mask_of_breast for m in members)


def _group_by(
    members: Iterable[CohortMember], key: Callable[[CohortMember], Any]
) -> dict[Any, list[CohortMember]]:
    groups: defaultdict[Any, list[CohortMember]] = defaultdict(list)
    for member in members:
        groups[key(member)].append(member)
    return groups


def _doubt_all(members: Iterable[CohortMember], doubt: Doubtful) -> DoubtfulRows:
    return [(member.row_number, doubt) for member in members]


CHECKS: tuple[Callable[[Sequence[CohortMember]], DoubtfulRows], ...] = (
    masks_alike,
    masks_large,
    vendor_saturated,
    mirrored,
)
