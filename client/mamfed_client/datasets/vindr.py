"""List VinDr-Mammo as distributed by PhysioNet: each study is a patient; findings are boxes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.datasets.listing import files_below, table_in
from mamfed_client.datasets.manifest import (
    Files,
    ListedImage,
    Manifest,
    PatientStatement,
    Row,
    allowed,
    assemble,
    by_image,
    named,
    state,
)
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.tables.csv_table import TableRow, concatenated, read_table
from mamfed_client.tables.field_parsers import (
    Label,
    parse_density,
    parse_kind,
    parse_label,
    parse_laterality,
    parse_number,
    parse_view,
    unite,
)
from mamfed_common.errors import DataError

LAYOUT = "vindr-mammo"
FINDINGS = "finding_annotations.csv"
BREASTS = "breast-level_annotations.csv"
IMAGES = "images"
HOLDS = FINDINGS

NEEDED = ("study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density")
CORNERS = ("xmin", "ymin", "xmax", "ymax")

Images = dict[tuple[str, str], Path]


def is_here(folder: Path) -> bool:
    """Tell whether the folder has the findings table."""
    return table_in(folder, FINDINGS) is not None


def read(folder: Path) -> Manifest:
    """Read the findings table followed by the breast table, if there is one.

    An image's label is the assessment of its breast, which all of its rows repeat.

    Raises:
        DataError: The findings table or the images are missing, or a table is not valid.
    """
    findings = table_in(folder, FINDINGS)
    if findings is None:
        raise DataError(f"{folder}: no {FINDINGS} in this folder")
    if not (folder / IMAGES).is_dir():
        raise DataError(f"{folder}: no folder {IMAGES} beside {FINDINGS}")
    tables = [read_table(findings, required=(*NEEDED, *CORNERS))]
    if breasts := table_in(folder, BREASTS):
        tables.append(read_table(breasts, required=NEEDED))
    listed = by_image(concatenated(tables), lambda record: record.cells["image_id"])
    files = {(p.parent.name, p.stem): p for p in files_below(folder / IMAGES)}
    return assemble(
        folder,
        LAYOUT,
        listed,
        partial(_row, files=files),
        _statement,
        partial(_files_of, files=files),
    )


def _row(listed: ListedImage, files: Images) -> Row:
    cells = listed.records[0].cells
    patient_id = named(cells["study_id"], "study_id")
    label = _label(listed)
    laterality = parse_laterality(cells["laterality"])
    image_path = files.get((patient_id, listed.image))
    if image_path is None:
        raise FileRejected(Reason.MISSING_IMAGE, f"no such file in its study's folder in {IMAGES}")
    boxes = tuple(box for record in listed.records for box in _boxes(record))
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=image_path,
        annotations=(Annotation(shapes=boxes),) if boxes else (),
        patient_id=patient_id,
        label=label,
        laterality=laterality,
        view=parse_view(cells["view_position"]),
        density=parse_density(cells["breast_density"]),
        kind=parse_kind(" ".join(r.cells.get("finding_categories", "") for r in listed.records)),
        split=cells.get("split", ""),
        allow=allowed(laterality),
    )


def _files_of(listed: ListedImage, files: Images) -> Files:
    image_path = files.get((listed.records[0].cells["study_id"], listed.image))
    return Files((image_path,) if image_path else ())


def _boxes(record: TableRow) -> list[Shape]:
    """Return the box of a finding, which may extend past the image; empty if the row has none.

    Raises:
        FileRejected: Some corners are not numbers.
    """
    cells = [record.cells.get(name, "") for name in CORNERS]
    if not any(cells):
        return []
    left, top, right, bottom = (parse_number(cell) for cell in cells)
    if not all(math.isfinite(corner) for corner in (left, top, right, bottom)):
        raise FileRejected(Reason.UNREADABLE_MASK, f"{', '.join(CORNERS)} are not four numbers")
    return [Shape("box", ((left, top), (right, bottom)))]


def _label(listed: ListedImage) -> Label:
    return unite(parse_label("", record.cells["breast_birads"]) for record in listed.records)


def _statement(listed: ListedImage) -> PatientStatement:
    cells = listed.records[0].cells
    return state(listed, cells["study_id"], _label, cells.get("split", ""))
