"""``labels.csv`` -> a site's usable rows, and the others by name and reason.

``docs/`` describes the table for its authors; ``COLUMNS`` is the list that the code goes by.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mamfed_client.cells import Label, parse_label, parse_laterality, parse_path, parse_spacing
from mamfed_client.mammogram import Laterality
from mamfed_client.rejections import Reason, Refusal, Rejection, rejection
from mamfed_client.table import Record, read_table
from mamfed_common.errors import DataError

TABLE = "labels.csv"
COLUMNS = (
    "image",
    "mask",
    "patient_id",
    "laterality",
    "view",
    "pathology",
    "birads",
    "density",
    "finding",
    "spacing_mm",
    "vendor",
    "source",
    "split",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row whose cells are understood and whose files are there.

    Attributes:
        row_number: Its line in the table as a text editor counts.
        image: The image cell as written; the image's name at the site.
        image_path: Where the image lies.
        mask_path: Where its mask lies, if it has one.
        patient_id: Whom the image shows. It stays at the site, out of logs and messages too.
        label: Its pathology and BI-RADS.
        laterality: Which breast.
        view: The view, in capitals.
        spacing_mm: Distance of pixel centres in millimetres.
        vendor: Who made the unit.
    """

    row_number: int
    image: str
    image_path: Path
    mask_path: Path | None
    patient_id: str
    label: Label
    laterality: Laterality | None
    view: str | None
    spacing_mm: float | None
    vendor: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a row says of its patient, whether the row can be used or not.

    A patient whose malignant image cannot be read has a malignancy all the same.

    Attributes:
        row_number: Its line in the table.
        patient_id: The patient.
        label: None where the row's label is not understood.
        split: The split cell as written.
    """

    row_number: int
    patient_id: str
    label: Label | None
    split: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A site's table, read.

    Attributes:
        folder: Where the table and the images lie.
        name: The cohort's name.
        rows: The usable rows in the table's order.
        rejected: The others, likewise.
        statements: What all of them say of their patients.
    """

    folder: Path
    name: str
    rows: list[Row]
    rejected: list[Rejection]
    statements: list[Statement]


def read_manifest(folder: Path, name: str) -> Manifest:
    """Read ``labels.csv`` of a folder. No image is opened.

    Raises:
        DataError: The folder or its table is missing, or the table as a whole makes no sense.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if not (folder / TABLE).is_file():
        raise DataError(f"{folder}: no {TABLE} in this folder")
    records = read_table(folder / TABLE, COLUMNS)
    _check_columns(folder / TABLE, records[0])
    rows, rejected = [], []
    for record in records:
        try:
            rows.append(_row(record, folder))
        except Refusal as refusal:
            rejected.append(rejection(record.row_number, record.cells["image"], refusal))
    duplicates = _duplicates(rows)
    rejected = sorted([*rejected, *duplicates.values()], key=lambda r: r.row_number)
    rows = [row for row in rows if row.row_number not in duplicates]
    statements = [_statement(record) for record in records if record.cells.get("patient_id")]
    return Manifest(folder, name, rows, rejected, statements)


def _check_columns(path: Path, record: Record) -> None:
    columns = record.cells.keys()
    for needed in ("image", "patient_id"):
        if needed not in columns:
            raise DataError(f"{path}: column {needed!r} is missing")
    if not {"pathology", "birads"} & columns:
        raise DataError(f"{path}: needs a column 'pathology' or 'birads', it has neither")


def _row(record: Record, folder: Path) -> Row:
    """Understand one row; the first trouble in the order of these lines is the one reported."""
    cells = record.cells
    if not record.complete:
        raise Refusal(Reason.WRONG_CELLS, "more or fewer cells than the header")
    if not cells["patient_id"]:
        raise Refusal(Reason.NO_PATIENT, "the patient_id cell is empty")
    label = _label(cells)
    laterality = parse_laterality(cells.get("laterality", ""))
    spacing_mm = parse_spacing(cells.get("spacing_mm", ""))
    if not cells["image"]:
        raise Refusal(Reason.MISSING_IMAGE, "the image cell is empty")
    image_path = parse_path(folder, cells["image"], Reason.MISSING_IMAGE)
    mask = cells.get("mask", "")
    return Row(
        row_number=record.row_number,
        image=cells["image"],
        image_path=image_path,
        mask_path=parse_path(folder, mask, Reason.MISSING_MASK) if mask else None,
        patient_id=cells["patient_id"],
        label=label,
        laterality=laterality,
        view=cells.get("view", "").upper() or None,
        spacing_mm=spacing_mm,
        vendor=cells.get("vendor") or None,
    )


def _label(cells: dict[str, str]) -> Label:
    return parse_label(cells.get("pathology", ""), cells.get("birads", ""))


def _statement(record: Record) -> Statement:
    """Take what a row says; of an incomplete one, whose cells may have shifted, no label."""
    label = None
    if record.complete:
        try:
            label = _label(record.cells)
        except Refusal:
            label = None
    cells = record.cells
    return Statement(record.row_number, cells["patient_id"], label, cells.get("split", ""))


def _duplicates(rows: list[Row]) -> dict[int, Rejection]:
    """Find rows that name an image again: all but the first, or all where they disagree."""
    by_image: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image_path].append(row)
    duplicates = {}
    for same in by_image.values():
        agree = len({(row.patient_id, row.label, row.mask_path) for row in same}) == 1
        numbers = ", ".join(str(row.row_number) for row in same)
        for row in same[1:] if agree else same:
            refusal = Refusal(Reason.DUPLICATE_IMAGE, f"rows {numbers} name the same image")
            duplicates[row.row_number] = rejection(row.row_number, row.image, refusal)
    return duplicates
