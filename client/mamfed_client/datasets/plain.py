"""A folder with ``labels.csv`` -> manifest.

``docs/`` describes the table for its authors; ``COLUMNS`` is the list that the code goes by.
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
    """Read the table. No image is opened.

    Raises:
        DataError: The table is missing, or as a whole makes no sense.
    """
    table = table_in(folder, TABLE)
    if table is None:
        raise DataError(f"{folder}: no {TABLE} in this folder")
    records = read_table(table, COLUMNS, needed=("image", "patient_id"))
    if not {"pathology", "birads"} & records[0].cells.keys():
        raise DataError(f"{table}: needs a column 'pathology' or 'birads', it has neither")
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
    """Understand one row; the first trouble in the order of these lines is the one reported."""
    cells = _only(listed).cells
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
        detail = "an archive; unpack it and name the file that was in it"
        raise FileRejected(Reason.UNREADABLE_IMAGE, detail)
    words = (tuple(_names(cells.get(column, ""))) for column in ("classes", "mask_values"))
    take = MalignantClasses(*words)
    annotations = _annotations(folder, cells.get("mask", ""), image_path.name, take)
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
    """Find what a row names, whether the row can be used or not."""
    masks = _names(_only(listed).cells.get("mask", ""))
    images = [listed.image] if listed.image else []
    return Files(_there(folder, images), _there(folder, masks))


def _there(folder: Path, cells: list[str]) -> tuple[Path, ...]:
    found = []
    for cell in cells:
        with suppress(FileRejected):
            found.append(parse_path(folder, cell, Reason.MISSING_IMAGE))
    return tuple(found)


def _names(cell: str) -> list[str]:
    """Take the names in a mask cell, several joined by ``|``."""
    return [name.strip() for name in cell.split("|") if cell]


def _annotations(
    folder: Path, cell: str, image_name: str, take: MalignantClasses
) -> tuple[Annotation, ...]:
    """Find the files of a mask cell, of any format."""
    paths = [parse_path(folder, name, Reason.MISSING_MASK) for name in _names(cell)]
    return tuple(Annotation(path, image_name, malignant=take) for path in paths)


def _label(listed: ListedImage) -> Label:
    cells = _only(listed).cells
    return parse_label(cells.get("pathology", ""), cells.get("birads", ""))


def _statement(listed: ListedImage) -> PatientStatement:
    cells = _only(listed).cells
    said = state(listed, cells["patient_id"], _label, cells.get("split", ""))
    return replace(said, patient_checked=_only(listed).complete and _is_checked(cells))


def _is_checked(cells: Mapping[str, str]) -> bool:
    try:
        return parse_yes(cells.get(CHECKED, ""), CHECKED)
    except FileRejected:
        return False


def _only(listed: ListedImage) -> TableRow:
    """Return the row: rows that name an image again are compared, not joined."""
    return listed.records[0]
