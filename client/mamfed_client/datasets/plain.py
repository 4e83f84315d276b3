"""List a folder with ``labels.csv``.

``docs/data.md`` describes the table for its authors; ``COLUMNS`` lists the columns that are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mamfed_client.annotations.classes import MalignantClasses
from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets.listing import table_in
from mamfed_client.datasets.manifest import (
    Files,
    ListedImage,
    Manifest,
    PatientStatement,
    Row,
    allowed,
    assemble,
    named,
    state,
)
from mamfed_client.datasets.other_files import ARCHIVES
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.tables.csv_table import TableRow, read_table
from mamfed_client.tables.field_parsers import (
    Label,
    parse_density,
    parse_kind,
    parse_label,
    parse_laterality,
    parse_path,
    parse_spacing,
    parse_view,
    parse_yes,
)
from mamfed_common.errors import DataError

LAYOUT = "labels"
TABLE = "labels.csv"
HOLDS = TABLE
CHECKED = "patient_checked"
COLUMNS = (
    "image",
    "mask",
    "mask_values",
    "classes",
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
    "reviewed",
    CHECKED,
)


def is_here(folder: Path) -> bool:
    """Tell whether the folder has the table."""
    return table_in(folder, TABLE) is not None


def read(folder: Path) -> Manifest:
    """Read the table without opening an image.

    Raises:
        DataError: The table is missing, or as a whole is not valid.
    """
    table = table_in(folder, TABLE)
    if table is None:
        raise DataError(f"{folder}: no {TABLE} in this folder")
    records = read_table(table, COLUMNS, required=("image", "patient_id"))
    if not {"pathology", "birads"} & records[0].cells.keys():
        raise DataError(f"{table}: needs a column 'pathology' or 'birads', but has neither")
    listed = [ListedImage(r.row_number, r.cells["image"], (r,)) for r in records]
    return assemble(
        folder,
        LAYOUT,
        listed,
        partial(_row, folder=folder),
        _statement,
        partial(_files, folder=folder),
    )


def _row(listed: ListedImage, folder: Path) -> Row:
    """Parse one row; the checks run in this order, and the first that fails is reported."""
    cells = _record(listed).cells
    patient_id = named(cells["patient_id"], "patient_id")
    label = _label(listed)
    laterality = parse_laterality(cells.get("laterality", ""))
    spacing_mm = parse_spacing(cells.get("spacing_mm", ""))
    reviewed = parse_yes(cells.get("reviewed", ""), "reviewed")
    parse_yes(cells.get(CHECKED, ""), CHECKED)
    if not listed.image:
        raise FileRejected(Reason.MISSING_IMAGE, "the image cell is empty")
    image_path = parse_path(folder, listed.image, Reason.MISSING_IMAGE)
    if image_path.suffix.lower() in ARCHIVES:
        detail = "an archive; unpack it and name the image file inside it"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail)
    malignant = MalignantClasses(
        *(tuple(_names(cells.get(column, ""))) for column in ("classes", "mask_values"))
    )
    annotations = _annotations(folder, cells.get("mask", ""), image_path.name, malignant)
    if any(annotation.path == image_path for annotation in annotations):
        raise FileRejected(Reason.UNREADABLE_MASK, "the mask cell names the image itself")
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=image_path,
        annotations=annotations,
        patient_id=patient_id,
        label=label,
        laterality=laterality,
        view=parse_view(cells.get("view", "")),
        spacing_mm=spacing_mm,
        vendor=cells.get("vendor") or None,
        density=parse_density(cells.get("density", "")),
        kind=parse_kind(cells.get("finding", "")),
        split=cells.get("split", ""),
        allow=allowed(laterality),
        reviewed=reviewed,
    )


def _files(listed: ListedImage, folder: Path) -> Files:
    """Find the existing files that a row names, whether or not the row can be used."""
    masks = _names(_record(listed).cells.get("mask", ""))
    images = [listed.image] if listed.image else []
    return Files(_existing(folder, images), _existing(folder, masks))


def _existing(folder: Path, cells: list[str]) -> tuple[Path, ...]:
    paths = []
    for cell in cells:
        with suppress(FileRejected):
            paths.append(parse_path(folder, cell, Reason.MISSING_IMAGE))
    return tuple(paths)


def _names(cell: str) -> list[str]:
    """Split a cell that holds several names separated by ``|``."""
    return [name.strip() for name in cell.split("|") if cell]


def _annotations(
    folder: Path, cell: str, image_name: str, malignant: MalignantClasses
) -> tuple[Annotation, ...]:
    """Find the annotation files of a mask cell, in any format."""
    paths = [parse_path(folder, name, Reason.MISSING_MASK) for name in _names(cell)]
    return tuple(Annotation(path, image_name, malignant=malignant) for path in paths)


def _label(listed: ListedImage) -> Label:
    cells = _record(listed).cells
    return parse_label(cells.get("pathology", ""), cells.get("birads", ""))


def _statement(listed: ListedImage) -> PatientStatement:
    record = _record(listed)
    statement = state(listed, record.cells["patient_id"], _label, record.cells.get("split", ""))
    return replace(statement, patient_checked=record.complete and _is_checked(record.cells))


def _is_checked(cells: Mapping[str, str]) -> bool:
    try:
        return parse_yes(cells.get(CHECKED, ""), CHECKED)
    except FileRejected:
        return False


def _record(listed: ListedImage) -> TableRow:
    """Return the only row of an image; in this layout, rows of the same image are not joined."""
    return listed.records[0]
