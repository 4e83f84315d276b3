"""The manifest of a folder: the rows to read, the rejected rows, and statements about patients.

This module holds what all layouts have in common.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
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
    """An image listed in the data set's table or folder; its files have not been opened yet.

    Attributes:
        row_number: Its line in the table as a text editor counts them or, in a folder without a
            table, its position in the listing, from 1.
        image: The site's name for the image: the table's cell, or the path below the folder.
        image_path: The path of the image file.
        annotations: The annotations of its findings; their union is the mask.
        patient_id: The patient; empty if only the file names one. It never leaves the site, and
            never appears in logs or messages.
        label: Its pathology and BI-RADS assessment.
        laterality: Which breast; None if the table does not say.
        view: The view in capitals; None if the table does not say.
        spacing_mm: Distance between pixel centres in millimetres; None if the table does not say.
        vendor: The unit's manufacturer; None if the table does not say.
        density: BI-RADS density ``A`` to ``D``, or the table's own term.
        kind: Kind of its findings (``field_parsers.parse_kind``).
        split: The table's split cell as written.
        allow: Reasons for which files of this data set are not rejected.
        reviewed: Whether somebody has confirmed that image and mask are correct.
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
    """What a row states about its patient, whether or not its image can be used.

    A patient whose malignant image cannot be read still has a malignancy.

    Attributes:
        row_number: Its line in the table.
        patient_id: The patient.
        label: The row's label; None if it cannot be parsed.
        split: The split cell as written.
        patient_checked: Whether the table confirms that its patient is as written and no other.
    """

    row_number: int
    patient_id: str
    label: Label | None
    split: str
    patient_checked: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The images that a folder lists.

    Attributes:
        folder: The folder.
        layout: Its layout: a name in ``datasets.LAYOUTS``.
        rows: The rows to read, in table order.
        rejected: The rejected rows, in table order.
        statements: What all rows state about their patients.
        images: The image files named by all rows, including rejected ones.
        outlines: The other files named by all rows.
    """

    folder: Path
    layout: str
    rows: list[Row]
    rejected: list[Rejection]
    statements: list[PatientStatement]
    images: set[Path] = field(default_factory=set)
    outlines: set[Path] = field(default_factory=set)


class Files(NamedTuple):
    """The existing files that a table names for one image.

    Attributes:
        images: The image file, or several candidates if it is ambiguous.
        outlines: Masks, crops and outlines of its findings.
    """

    images: tuple[Path, ...] = ()
    outlines: tuple[Path, ...] = ()


class ListedImage(NamedTuple):
    """All rows of a table about one image.

    Attributes:
        row_number: The line of its first row.
        image: The site's name for the image; empty if no cell names it.
        records: Its rows, one per finding.
    """

    row_number: int
    image: str
    records: tuple[TableRow, ...]


def by_image(records: Iterable[TableRow], name: Callable[[TableRow], str]) -> list[ListedImage]:
    """Group rows by image; rows that name no image form groups of their own."""
    groups: defaultdict[str | int, list[TableRow]] = defaultdict(list)
    for record in records:
        groups[name(record) or record.row_number].append(record)
    return [ListedImage(same[0].row_number, name(same[0]), tuple(same)) for same in groups.values()]


def assemble(
    folder: Path,
    layout: str,
    listed: Iterable[ListedImage],
    parse: Callable[[ListedImage], Row],
    statement_of: Callable[[ListedImage], PatientStatement],
    files_of: Callable[[ListedImage], Files],
) -> Manifest:
    """Parse the images of a table one by one; an error rejects only its own image.

    Args:
        folder: The data set.
        layout: The layout's name.
        listed: The images of the table.
        parse: Parses an image; raises ``FileRejected`` if it cannot be used.
        statement_of: Returns what an image's rows state about the patient.
        files_of: Returns the existing files of an image.
    """
    rows, rejected, statements = [], [], []
    images: set[Path] = set()
    outlines: set[Path] = set()
    for image in listed:
        files = files_of(image)
        images.update(files.images)
        outlines.update(files.outlines)
        try:
            if not all(record.complete for record in image.records):
                raise FileRejected(Reason.WRONG_CELLS, "more or fewer cells than the header")
            rows.append(parse(image))
        except FileRejected as error:
            rejected.append(rejection(image.row_number, image.image, error))
        statement = statement_of(image)
        if statement.patient_id:
            statements.append(statement)
    duplicates = repeated_rows(rows)
    rejected = sorted([*rejected, *duplicates.values()], key=lambda r: r.row_number)
    rows = [row for row in rows if row.row_number not in duplicates]
    return Manifest(folder, layout, rows, rejected, statements, images, outlines)


def state(
    listed: ListedImage, patient_id: str, label: Callable[[ListedImage], Label], split: str = ""
) -> PatientStatement:
    """Return what an image's rows state about the patient.

    The label is None if it cannot be parsed or if a row is incomplete: its cells may have shifted.
    """
    parsed = None
    if all(record.complete for record in listed.records):
        with suppress(FileRejected):
            parsed = label(listed)
    return PatientStatement(listed.row_number, patient_id, parsed, split)


def named(patient_id: str, column: str) -> str:
    """Return the patient if the cell is valid.

    Raises:
        FileRejected: The cell is empty, or a spreadsheet has rounded it to something like
            ``1.23457E+12``, which may also stand for other patients.
    """
    if not patient_id:
        raise FileRejected(Reason.NO_PATIENT, f"the {column} cell is empty")
    if _ROUNDED.fullmatch(patient_id):
        detail = f"the {column} cell is a number rounded by a spreadsheet; format it as text"
        raise FileRejected(Reason.NO_PATIENT, detail)
    return patient_id


def allowed(laterality: Laterality | None, *reasons: Reason) -> frozenset[Reason]:
    """Return the reasons to ignore: the given ones, and no laterality if the table names it."""
    return frozenset(reasons) | ({Reason.NO_LATERALITY} if laterality else set())


def some_rows(row_numbers: Iterable[int], most: int = 8) -> str:
    """List the first ``most`` rows and count the others, of which there may be thousands."""
    numbers = list(row_numbers)
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def linked_patients(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Find patients who must stay in one part of the split because they share images.

    Args:
        pairs: Pairs of patients who share an image.

    Returns:
        For each of these patients, the first in alphabetical order of all patients linked to them
        by a chain of pairs.
    """
    parent: dict[str, str] = {}

    def root(patient: str) -> str:
        parent.setdefault(patient, patient)
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]  # halves the chain for the next search
            patient = parent[patient]
        return patient

    for pair in pairs:
        small, large = sorted(root(patient) for patient in pair)
        parent[large] = small
    return {patient: root(patient) for patient in sorted(parent)}


def repeated_rows(rows: list[Row]) -> dict[int, Rejection]:
    """Find rows that repeat an image: all but the first, or all of them if they disagree."""
    by_path: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        by_path[row.image_path].append(row)
    duplicates = {}
    for same in by_path.values():
        agree = len({(row.patient_id, row.label, row.annotations) for row in same}) == 1
        numbers = some_rows(row.row_number for row in same)
        for row in same[1:] if agree else same:
            error = FileRejected(Reason.DUPLICATE_IMAGE, f"rows {numbers} name the same image")
            duplicates[row.row_number] = rejection(row.row_number, row.image, error)
    return duplicates
