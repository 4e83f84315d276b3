"""The same picture twice: in two files, under two names, perhaps of two patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from mamfed_client.cells import Label
from mamfed_client.labels import is_malignant, is_without_malignancy
from mamfed_client.manifest import some_rows
from mamfed_client.rejections import Reason, Refusal


class Picture(NamedTuple):
    """What tells whether two rows show the same.

    Attributes:
        row_number: The row.
        patient: Whom it is said to show.
        label: What it is said to show.
        outlined: Whether its findings are outlined.
        instance: Pseudonym of its SOP Instance UID; empty where unknown.
        pixels: Hash of its grey levels.
    """

    row_number: int
    patient: str
    label: Label
    outlined: bool
    instance: str
    pixels: str


def find_duplicates(
    pictures: Sequence[Picture],
) -> tuple[dict[int, Refusal], list[tuple[str, str]]]:
    """Choose one row of each picture.

    The most suspicious row of a picture is kept, of equal ones the first. Where one row says
    malignant and another, of another patient, says not, none is believed.

    Returns:
        The rows to refuse, and pairs of patients who share a picture: a split that parted them
        would test on what it trained on.
    """
    refused: dict[int, Refusal] = {}
    pairs: list[tuple[str, str]] = []
    for what, same in _groups(pictures):
        numbers = some_rows(picture.row_number for picture in same)
        refusal = Refusal(Reason.DUPLICATE_IMAGE, f"rows {numbers} have the same {what}")
        kept = _chosen(same)
        for picture in same:
            if picture is not kept:
                refused.setdefault(picture.row_number, refusal)
        pairs += [(a.patient, b.patient) for a, b in pairwise(same) if a.patient != b.patient]
    return refused, pairs


def _groups(pictures: Sequence[Picture]) -> Iterable[tuple[str, list[Picture]]]:
    """Yield pictures with equal identifiers, then those with equal pixels."""
    for what in ("instance", "pixels"):
        groups: defaultdict[str, list[Picture]] = defaultdict(list)
        for picture in pictures:
            if key := getattr(picture, what):
                groups[key].append(picture)
        title = "SOP Instance UID" if what == "instance" else what
        yield from ((title, same) for same in groups.values() if len(same) > 1)


def _chosen(same: list[Picture]) -> Picture | None:
    patients = {picture.patient for picture in same}
    malignant = any(is_malignant(picture.label) for picture in same)
    if len(patients) > 1 and malignant and any(is_without_malignancy(p.label) for p in same):
        return None
    return max(same, key=lambda p: (is_malignant(p.label), p.outlined, -p.row_number))
