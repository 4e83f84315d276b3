"""List INbreast as downloaded: ``INbreast.csv``, ``AllDICOMs/`` and ``AllXML/``.

The patient is identified only by a hash in the image's file name,
``20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mamfed_client.annotations.shapes import Annotation
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
    state,
)
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection
from mamfed_client.tables.csv_table import read_table
from mamfed_client.tables.field_parsers import (
    Label,
    parse_density,
    parse_label,
    parse_laterality,
    unite,
)
from mamfed_common.errors import DataError

LAYOUT = "inbreast"
TABLE = "INbreast.csv"
WORKBOOK = "INbreast.xls"
IMAGES = "AllDICOMs"
OUTLINES = "AllXML"
HOLDS = f"{TABLE} or {WORKBOOK}"

NEEDED = ("laterality", "view", "file name", "acr", "bi-rads")

_NAME = re.compile(r"(\d+)_([0-9a-f]+)_MG_([LR])_([A-Z]+)_ANON\.dcm", re.IGNORECASE)


class _File(NamedTuple):
    """An image and the parts of its file name."""

    path: Path
    image_id: str
    patient_id: str
    laterality: Laterality | None
    view: str


def is_here(folder: Path) -> bool:
    """Tell whether the folder has the table, as CSV or workbook."""
    return any(table_in(folder, name) for name in (TABLE, WORKBOOK))


def read(folder: Path) -> Manifest:
    """Read the table and list the images; images without a row are rejected individually.

    Raises:
        DataError: The table or the images are missing, or the table is not valid.
    """
    table = table_in(folder, TABLE)
    if table is None:
        hint = f"open {WORKBOOK} and save it as {TABLE}, 'CSV UTF-8'"
        raise DataError(f"{folder}: no {TABLE} in this folder; {hint}")
    if not (folder / IMAGES).is_dir():
        raise DataError(f"{folder}: no folder {IMAGES} beside {TABLE}")
    records = read_table(table, required=NEEDED)
    present = _files(folder / IMAGES)
    files = {file.image_id: file for file in present}
    listed = by_image(records, lambda record: record.cells["file name"])
    manifest = assemble(
        folder,
        LAYOUT,
        listed,
        partial(_row, files=files),
        partial(_statement, files=files),
        partial(_files_of, files=files),
    )
    known = {image.image for image in listed}
    unlisted = [file for file in present if file.image_id not in known]
    _reject(manifest, unlisted, after=records[-1].row_number)
    return manifest


def _files(images: Path) -> list[_File]:
    """Parse image file names; a name of another form becomes an image id itself."""
    files = []
    for path in files_below(images):
        match = _NAME.fullmatch(path.name)
        if match:
            image_id, patient_id, side, view = match.groups()
            files.append(_File(path, image_id, patient_id, parse_laterality(side), view.upper()))
        else:
            files.append(_File(path, path.name, "", None, ""))
    return files


def _row(listed: ListedImage, files: dict[str, _File]) -> Row:
    cells = listed.records[0].cells
    label = _label(listed)
    file = files.get(listed.image)
    if file is None:
        raise FileRejected(Reason.MISSING_IMAGE, f"no file in {IMAGES} begins with this number")
    if file.laterality != (parse_laterality(cells["laterality"]) or file.laterality):
        raise FileRejected(Reason.BAD_LATERALITY, "the table and the file name disagree")
    outline = _outline(file)
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=file.path,
        annotations=(Annotation(outline, file.path.name),) if outline.is_file() else (),
        patient_id=file.patient_id,
        label=label,
        laterality=file.laterality,
        view=file.view,  # the table says MLO for images whose file names say ML or FB
        density=parse_density(cells["acr"]),
        allow=allowed(file.laterality),
    )


def _outline(file: _File) -> Path:
    """Return the path of an image's outlines; normal images have no such file."""
    return file.path.parents[1] / OUTLINES / f"{file.image_id}.xml"


def _files_of(listed: ListedImage, files: dict[str, _File]) -> Files:
    file = files.get(listed.image)
    return Files((file.path,), (_outline(file),)) if file else Files()


def _label(listed: ListedImage) -> Label:
    return unite(parse_label("", record.cells["bi-rads"]) for record in listed.records)


def _statement(listed: ListedImage, files: dict[str, _File]) -> PatientStatement:
    file = files.get(listed.image)
    return state(listed, file.patient_id if file else "", _label)


def _reject(manifest: Manifest, unlisted: Sequence[_File], after: int) -> None:
    """Reject images without a row; their patients get a statement without a label."""
    for number, file in enumerate(unlisted, start=after + 1):
        detail = f"{TABLE} has no row for this file"
        manifest.images.add(file.path)
        manifest.rejected.append(Rejection(number, file.image_id, Reason.BAD_LABEL, detail))
        if file.patient_id:
            manifest.statements.append(PatientStatement(number, file.patient_id, None, ""))
