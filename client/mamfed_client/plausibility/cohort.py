"""What a site's images together say, where each by itself may be right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.plausibility.measures import Measures

FEWEST = 5
"""Images from which a group says something."""
NEARLY_ALL = 0.9
PLAIN = 0.25
"""Share of a breast at one grey level; 0.19 at most in real images."""
MOST = 0.9
"""Of breasts of one side: in real sites all point one way, or at most 67 of 80 do."""
ALIKE = 0.8
LOOSE = 0.5
"""Masks that fit what is bright better than this mark something; placeholders have 0.3 or less."""
USUAL = 0.02
"""Share of the breast that the median mask of a data set marks: 0.007 to 0.03 in seven film and
phantom ones, 0.11 in one with advanced cancers."""
TIMES = 20


class CohortMember(NamedTuple):
    """What is known of one image of a site.

    Attributes:
        row_number: Its row.
        vendor: Who made the unit; None where it is not known.
        laterality: Which breast.
        measures: What was measured on it.
        reviewed: Whether somebody has found it right.
    """

    row_number: int
    vendor: str | None
    laterality: Laterality | None
    measures: Measures
    reviewed: bool = False


def judge_cohort(members: Sequence[CohortMember]) -> dict[int, Doubts]:
    """Return row number -> what is doubtful of it because of the others."""
    found: defaultdict[int, Doubts] = defaultdict(tuple)
    for check in CHECKS:
        for number, doubt in check(members):
            found[number] += (doubt,)
    return dict(found)


Found = Iterable[tuple[int, Doubtful]]


def masks_alike(members: Sequence[CohortMember]) -> Found:
    """Doubt masks most of which have one area and one box, and do not fit what is bright."""
    masked = [m for m in members if m.measures.mask_pixels]
    sizes = Counter(_size(m.measures) for m in masked)
    if len(masked) < FEWEST:
        return []
    size, count = sizes.most_common(1)[0]
    alike = [m for m in masked if _size(m.measures) == size]
    loose = median(m.measures.mask_fit for m in alike) < LOOSE
    if count < max(FEWEST, ALIKE * len(masked)) or not loose:
        return []
    return _all(alike, Doubtful(Doubt.MASKS_ALIKE, f"{count} of {len(masked)} masks"))


def masks_large(members: Sequence[CohortMember]) -> Found:
    """Doubt the masks of a vendor, or site, that cover many times what others do."""
    masked = [m for m in members if m.measures.mask_pixels]
    groups = _by(masked, lambda m: m.vendor)
    for vendor, group in groups.items():
        others = [m for m in masked if m.vendor != vendor]
        usual = _middle(others) if len(others) >= FEWEST else USUAL
        times = _middle(group) / usual
        if len(group) >= FEWEST and times >= TIMES:
            beside = "other vendors'" if len(others) >= FEWEST else "usual ones"
            yield from _all(group, Doubtful(Doubt.MASKS_LARGE, f"{times:.0f} times {beside}"))


def compare_sites(sites: Mapping[str, Sequence[CohortMember]]) -> tuple[str, ...]:
    """Say which of the sites of a simulation differ from the others as no right data do.

    Hospitals of a real federation do not show each other their masks; each is held against
    ``USUAL`` instead.

    Returns:
        A sentence, with the figures, for each site whose masks cover many times what those of all
        others do, and for each vendor at a site of which nearly all images are saturated.
    """
    notes = []
    masked = {name: [m for m in some if m.measures.mask_pixels] for name, some in sites.items()}
    for name, own in masked.items():
        others = [m for other, some in masked.items() if other != name for m in some]
        if min(len(own), len(others)) < FEWEST or all(m.reviewed for m in own):
            continue
        if _middle(own) >= TIMES * _middle(others):
            notes.append(
                f"{name}: its masks cover {_middle(own):.1%} of the breast (the middle one of "
                f"{len(own)}), those of the other sites {_middle(others):.1%}: they may mark "
                "another class, or more than the finding; look at them before training"
            )
    for name, members in sites.items():
        found = dict(vendor_saturated([m for m in members if not m.reviewed]))
        for vendor, group in _by(members, lambda m: m.vendor).items():
            doubted = [m for m in group if m.row_number in found]
            if doubted:
                notes.append(
                    f"{name}: {found[doubted[0].row_number].detail} by {vendor or 'no vendor'} "
                    "have much of the breast at one grey level: their export may be wrong"
                )
    return tuple(notes)


def vendor_saturated(members: Sequence[CohortMember]) -> Found:
    """Doubt a vendor nearly all of whose images have much of the breast at one grey level."""
    for group in _by(members, lambda m: m.vendor).values():
        share = sum(m.measures.plain_share >= PLAIN for m in group) / len(group)
        if len(group) >= FEWEST and share >= NEARLY_ALL:
            yield from _all(group, Doubtful(Doubt.SATURATED_VENDOR, f"{share:.0%} of its images"))


def mirrored(members: Sequence[CohortMember]) -> Found:
    """Doubt a breast that points the other way than most others of its vendor and side."""
    known = [m for m in members if m.laterality and m.measures.chest_wall]
    for group in _by(known, lambda m: (m.vendor, m.laterality)).values():
        (usual, count), *_ = Counter(m.measures.chest_wall for m in group).most_common(1)
        if len(group) >= FEWEST and MOST * len(group) <= count < len(group):
            others = [m for m in group if m.measures.chest_wall != usual]
            yield from _all(others, Doubtful(Doubt.MIRRORED, f"unlike {count} of {len(group)}"))


def _size(measures: Measures) -> tuple[int, int, int]:
    return measures.mask_pixels, measures.mask_rows, measures.mask_columns


def _middle(members: Iterable[CohortMember]) -> float:
    return median(m.measures.mask_of_breast for m in members)


def _by(
    members: Iterable[CohortMember], key: Callable[[CohortMember], Any]
) -> dict[Any, list[CohortMember]]:
    groups: defaultdict[Any, list[CohortMember]] = defaultdict(list)
    for member in members:
        groups[key(member)].append(member)
    return groups


def _all(members: Iterable[CohortMember], doubt: Doubtful) -> Found:
    return [(member.row_number, doubt) for member in members]


CHECKS: tuple[Callable[[Sequence[CohortMember]], Found], ...] = (
    masks_alike,
    masks_large,
    vendor_saturated,
    mirrored,
)
