"""What a folder offers: rows that can be tried, rows that cannot, and what all say of patients.

``datasets`` reads folders; here is what its layouts have in common.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection, rejection
from mamfed_client.tables.csv_table import TableRow
from mamfed_client.tables.field_parsers import Label

_ROUNDED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """An image that the data set's table, or its folder, offers; nothing has been opened yet.

    Attributes:
        row_number: Its line in the table as a text editor counts, or its place in the listing of
            a folder without a table, from 1.
        image: The image as the site calls it: the table's cell, or the path below the folder.
        image_path: Where the image lies.
        annotations: What outlines its findings; their union is its mask.
        patient_id: Whom the image shows; empty where only the file knows. It stays at the site,
            out of logs and messages too.
        label: Its pathology and BI-RADS.
        laterality: Which breast, if the table says so.
        view: The view in capitals, likewise.
        spacing_mm: Distance of pixel centres in millimetres, likewise.
        vendor: Who made the unit, likewise.
        density: BI-RADS density ``A`` to ``D``, or what else the table says.
        kind: Kind of its findings (``cells.parse_kind``).
        split: The part of the split that the table puts it in, as written.
        allow: Reasons for which files of this data set are not refused.
        reviewed: Whether somebody has looked at image and mask, and found them right.
    """

    row_number: int
    image: str
    image_path: Path
    annotations: tuple[Annotation, ...]
    patient_id: str
    label: Label
    laterality: Laterality | None = None
    view: str | None = None
    spacing_mm: float | None = None
    vendor: str | None = None
    density: str | None = None
    kind: str | None = None
    split: str = ""
    allow: frozenset[Reason] = frozenset()
    reviewed: bool = False


@dataclass(frozen=True, slots=True)
class PatientStatement:
    """What a row says of its patient, whether the row can be used or not.

    A patient whose malignant image cannot be read has a malignancy all the same.

    Attributes:
        row_number: Its line in the table.
        patient_id: The patient.
        label: None where the row's label is not understood.
        split: The split cell as written.
        patient_checked: Whether the table says that its patient is as written, and nobody else.
    """

    row_number: int
    patient_id: str
    label: Label | None
    split: str
    patient_checked: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder offers.

    Attributes:
        folder: Where it lies.
        layout: How it is laid out: a name in ``datasets.LAYOUTS``.
        rows: The rows that can be tried, in the table's order.
        rejected: The others, likewise.
        statements: What all of them say of their patients.
        images: The image files that the rows name, also those of rejected rows.
        outlines: The other files that they name.
    """

    folder: Path
    layout: str
    rows: list[Row]
    rejected: list[Rejection]
    statements: list[PatientStatement]
    images: set[Path] = field(default_factory=set)
    outlines: set[Path] = field(default_factory=set)


class Files(NamedTuple):
    """The files that a table names for one image, as far as they are there.

    Attributes:
        images: The image; several where it cannot be told which.
        outlines: Masks, crops and outlines of its findings.
    """

    images: tuple[Path, ...] = ()
    outlines: tuple[Path, ...] = ()


class ListedImage(NamedTuple):
    """All that a table says of one image.

    Attributes:
        row_number: The line of the first of its rows.
        image: The image as the site calls it; empty where no cell names it.
        records: Its rows, one a finding.
    """

    row_number: int
    image: str
    records: tuple[TableRow, ...]


def by_image(records: Iterable[TableRow], name: Callable[[TableRow], str]) -> list[ListedImage]:
    """Bring the rows of an image together; rows that name none stay by themselves."""
    groups: defaultdict[str | int, list[TableRow]] = defaultdict(list)
    for record in records:
        groups[name(record) or record.row_number].append(record)
    return [ListedImage(same[0].row_number, name(same[0]), tuple(same)) for same in groups.values()]


def assemble(
    folder: Path,
    layout: str,
    listed: Iterable[ListedImage],
    understand: Callable[[ListedImage], Row],
    statement: Callable[[ListedImage], PatientStatement],
    files: Callable[[ListedImage], Files],
) -> Manifest:
    """Understand the images of a table one by one; a refusal costs only its own image."""
    rows, rejected, statements = [], [], []
    images: set[Path] = set()
    outlines: set[Path] = set()
    for one in listed:
        named_files = files(one)
        images.update(named_files.images)
        outlines.update(named_files.outlines)
        try:
            if not all(record.complete for record in one.records):
                raise FileRejected(Reason.WRONG_CELLS, "more or fewer cells than the header")
            rows.append(understand(one))
        except FileRejected as refusal:
            rejected.append(rejection(one.row_number, one.image, refusal))
        said = statement(one)
        if said.patient_id:
            statements.append(said)
    duplicates = _duplicates(rows)
    rejected = sorted([*rejected, *duplicates.values()], key=lambda r: r.row_number)
    rows = [row for row in rows if row.row_number not in duplicates]
    return Manifest(folder, layout, rows, rejected, statements, images, outlines)


def state(
    listed: ListedImage, patient_id: str, label: Callable[[ListedImage], Label], split: str = ""
) -> PatientStatement:
    """Take what is said of an image; of incomplete rows, whose cells may have shifted, no label."""
    understood = None
    if all(record.complete for record in listed.records):
        try:
            understood = label(listed)
        except FileRejected:
            understood = None
    return PatientStatement(listed.row_number, patient_id, understood, split)


def named(patient_id: str, column: str) -> str:
    """Return the patient.

    Raises:
        Refusal: The cell is empty, or a spreadsheet has made ``1.23457E+12`` of it: so would it
            of other patients' numbers.
    """
    if not patient_id:
        raise FileRejected(Reason.NO_PATIENT, f"the {column} cell is empty")
    if _ROUNDED.fullmatch(patient_id):
        detail = f"the {column} cell is a number that a spreadsheet has rounded; make it text"
        raise FileRejected(Reason.NO_PATIENT, detail)
    return patient_id


def allowed(laterality: Laterality | None, *reasons: Reason) -> frozenset[Reason]:
    """Say what files need not tell: where the table names the breast, the file need not."""
    return frozenset(reasons) | ({Reason.NO_LATERALITY} if laterality else set())


def some_rows(row_numbers: Iterable[int], most: int = 8) -> str:
    """Name some rows and count the others: a folder may hold thousands of one picture."""
    numbers = list(row_numbers)
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def linked_patients(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Find patients who must stay in one part of the split, as they share images.

    Args:
        pairs: Two patients each who share an image.

    Returns:
        Each of these patients -> the smallest of all whom a chain of pairs links to them.
    """
    above: dict[str, str] = {}

    def root(patient: str) -> str:
        above.setdefault(patient, patient)
        while above[patient] != patient:
            above[patient] = above[above[patient]]  # halves the chain for the next search
            patient = above[patient]
        return patient

    for pair in pairs:
        small, large = sorted(root(patient) for patient in pair)
        above[large] = small
    return {patient: root(patient) for patient in sorted(above)}


def _duplicates(rows: list[Row]) -> dict[int, Rejection]:
    """Find rows that name an image again: all but the first, or all where they disagree."""
    by_path: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        by_path[row.image_path].append(row)
    duplicates = {}
    for same in by_path.values():
        agree = len({(row.patient_id, row.label, row.annotations) for row in same}) == 1
        numbers = some_rows(row.row_number for row in same)
        for row in same[1:] if agree else same:
            refusal = FileRejected(Reason.DUPLICATE_IMAGE, f"rows {numbers} name the same image")
            duplicates[row.row_number] = rejection(row.row_number, row.image, refusal)
    return duplicates
