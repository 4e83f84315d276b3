"""The same picture twice: in two files, under two names, perhaps of two patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from mamfed_client.datasets.manifest import some_rows
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.preparation.eligibility import is_malignant, is_without_malignancy
from mamfed_client.tables.field_parsers import Label


class Picture(NamedTuple):
    """What tells whether two rows show the same.

    Attributes:
        row_number: The row.
        patient: Whom it is said to show.
        label: What it is said to show.
        outlined: Whether its findings are outlined.
        instance: Pseudonym of its SOP Instance UID; empty where unknown.
        pixels: Hash of its grey levels.
        marked: Share of its pixels that its outlines mark.
    """

    row_number: int
    patient: str
    label: Label
    outlined: bool
    instance: str
    pixels: str
    marked: float = 0.0


def find_duplicates(
    pictures: Sequence[Picture],
) -> tuple[dict[int, FileRejected], list[tuple[str, str]]]:
    """Choose one row of each picture, known by its pixels.

    The most suspicious row of a picture is kept, of equal ones the first. Where one row says
    malignant and another, of another patient, says not, none is believed; nor where two rows
    outline different lesions, which one row with both outlines should.

    Returns:
        The rows to refuse, and pairs of patients who share a picture: a split that parted them
        would test on what it trained on.
    """
    refused: dict[int, FileRejected] = {}
    pairs: list[tuple[str, str]] = []
    for same in _groups(pictures, lambda picture: picture.pixels):
        numbers = some_rows(picture.row_number for picture in same)
        refusal = FileRejected(Reason.DUPLICATE_IMAGE, f"rows {numbers} have the same pixels")
        kept = _chosen(same)
        if kept is None and _outline_different_lesions(same):
            more = "; outlines differ: name all in one row"
            refusal = FileRejected(refusal.reason, refusal.detail + more)
        for picture in same:
            if picture is not kept:
                refused[picture.row_number] = refusal
        pairs += [(a.patient, b.patient) for a, b in pairwise(same) if a.patient != b.patient]
    return refused, pairs


def identifier_notes(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Say where one SOP Instance UID stands on different pictures, as anonymisers leave it.

    It ought to name one image only (PS3.3 C.12.1), so one of two images would be lost if it were
    believed: the pixels decide.
    """
    groups = [
        same
        for same in _groups(pictures, lambda picture: picture.instance)
        if len({picture.pixels for picture in same}) > 1
    ]
    if not groups:
        return ()
    rows = some_rows(picture.row_number for same in groups for picture in same)
    return (f"rows {rows}: one SOP Instance UID on different pictures, which are all used",)


def _groups(pictures: Iterable[Picture], key: Callable[[Picture], str]) -> Iterator[list[Picture]]:
    """Yield the pictures that share what is known of them."""
    groups: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if value := key(picture):
            groups[value].append(picture)
    yield from (same for same in groups.values() if len(same) > 1)


def _chosen(same: list[Picture]) -> Picture | None:
    patients = {picture.patient for picture in same}
    malignant = any(is_malignant(picture.label) for picture in same)
    if _outline_different_lesions(same):
        return None  # one of the two would be taught as healthy
    if len(patients) > 1 and malignant and any(is_without_malignancy(p.label) for p in same):
        return None
    return max(same, key=lambda p: (is_malignant(p.label), p.outlined, -p.row_number))


def _outline_different_lesions(same: list[Picture]) -> bool:
    return len({p.marked for p in same if is_malignant(p.label) and p.outlined}) > 1
