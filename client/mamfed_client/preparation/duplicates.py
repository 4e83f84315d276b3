"""Find pictures that occur more than once: in two files, under two names or for two patients."""

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
    """The properties by which two rows are compared.

    Attributes:
        row_number: The row.
        patient: The patient that the row names.
        label: The row's label.
        outlined: Whether its findings are outlined.
        instance: Pseudonym of its SOP Instance UID; empty if unknown.
        pixels: Hash of its grey levels.
        marked: Share of its pixels that its outlines mark, 0..1.
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
    """Choose one row for each picture; pictures are compared by their pixels.

    The most suspicious row of a picture is kept; among equals, the first. No row is kept if rows of
    different patients contradict each other on malignancy, or if rows outline different lesions,
    which belong in a single row.

    Returns:
        The rows to reject, and pairs of patients who share a picture. Such patients must stay in
        one part of the split, or testing would use training images.
    """
    rejected: dict[int, FileRejected] = {}
    pairs: list[tuple[str, str]] = []
    for same in _groups(pictures, lambda picture: picture.pixels):
        numbers = some_rows(picture.row_number for picture in same)
        detail = f"rows {numbers} have the same pixels"
        kept = _chosen(same)
        if kept is None and _outline_different_lesions(same):
            detail += "; their outlines differ: name all of them in one row"
        for picture in same:
            if picture is not kept:
                rejected[picture.row_number] = FileRejected(Reason.DUPLICATE_IMAGE, detail)
        pairs += [(a.patient, b.patient) for a, b in pairwise(same) if a.patient != b.patient]
    return rejected, pairs


def identifier_notes(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Report SOP Instance UIDs that occur on different pictures, as some anonymisers leave them.

    A UID should identify a single image (PS3.3 C.12.1). Trusting a repeated one would lose an
    image, so the pixels decide.
    """
    groups = [
        same
        for same in _groups(pictures, lambda picture: picture.instance)
        if len({picture.pixels for picture in same}) > 1
    ]
    if not groups:
        return ()
    rows = some_rows(picture.row_number for same in groups for picture in same)
    return (f"rows {rows}: different pictures share a SOP Instance UID; all of them are used",)


def _groups(pictures: Iterable[Picture], key: Callable[[Picture], str]) -> Iterator[list[Picture]]:
    """Yield groups of two or more pictures with the same non-empty key."""
    groups: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if value := key(picture):
            groups[value].append(picture)
    yield from (same for same in groups.values() if len(same) > 1)


def _chosen(same: list[Picture]) -> Picture | None:
    patients = {picture.patient for picture in same}
    malignant = any(is_malignant(picture.label) for picture in same)
    if _outline_different_lesions(same):
        return None  # training would learn one of the lesions as healthy tissue
    if len(patients) > 1 and malignant and any(is_without_malignancy(p.label) for p in same):
        return None
    return max(same, key=lambda p: (is_malignant(p.label), p.outlined, -p.row_number))


def _outline_different_lesions(same: list[Picture]) -> bool:
    return len({p.marked for p in same if is_malignant(p.label) and p.outlined}) > 1
