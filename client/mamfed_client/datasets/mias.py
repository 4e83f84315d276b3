"""List mini-MIAS as downloaded: ``Info.txt`` and ``mdb001.pgm`` to ``mdb322.pgm``.

Each line is a finding, such as ``mdb001 G CIRC B 535 425 197``: tissue, abnormality, severity,
centre and radius. Two consecutive images show one patient, the odd number the right breast and the
even number the left; all are MLO views.
"""

from __future__ import annotations

import re
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
    state,
)
from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.tables.csv_table import TableRow
from mamfed_client.tables.field_parsers import Label, Pathology, parse_kind, unite
from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import TABLE_BYTES, read_bytes
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, decode_text

LAYOUT = "mini-mias"
NOTHING = "NORM"
"""Replaces the abnormality in images without one."""
TABLE = "Info.txt"
HOLDS = f"{TABLE} with lines like 'mdb001 G CIRC B 535 425 197'"

HEIGHT = 1024
"""Height of all its images in pixels; y is counted from the bottom."""

SPACING_MM = 0.2
"""mini-MIAS is MIAS reduced to 200 micrometres per pixel."""

TISSUES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
"""Spelled out because dense-glandular is not the D of BI-RADS."""

_IMAGE = re.compile(r"mdb(\d{3})", re.IGNORECASE)
_SEVERITIES = {"B": Pathology.BENIGN, "M": Pathology.MALIGNANT}


def is_here(folder: Path) -> bool:
    """Tell whether the folder has an ``Info.txt`` with such lines."""
    table = table_in(folder, TABLE)
    return table is not None and bool(_records(table))


def read(folder: Path) -> Manifest:
    """Read the lines about images, skipping the prose and header around them.

    Raises:
        DataError: The file is missing or has no such lines.
    """
    table = table_in(folder, TABLE)
    records = _records(table) if table else []
    if not records:
        raise DataError(f"{folder}: no {HOLDS} in this folder")
    listed = by_image(records, lambda record: record.cells["image"])
    paths = [path for path in files_below(folder) if path.suffix.lower() == ".pgm"]
    files = {path.stem.lower(): path for path in paths}
    return assemble(
        folder,
        LAYOUT,
        listed,
        partial(_row, files=files),
        _statement,
        partial(_files_of, files=files),
    )


def _records(path: Path) -> list[TableRow]:
    """Parse the lines about images; ``place`` is everything after the severity."""
    try:
        data = read_bytes(path, TABLE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(path, error)}") from None
    try:
        lines = decode_text(data).splitlines()
    except NotTextError:  # prose around the lines may be in any encoding
        lines = data.decode("ascii", "replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        image, tissue, abnormality, severity, *place = [*line.split(), "", "", "", ""]
        if _IMAGE.fullmatch(image):
            cells = {"image": image.lower(), "tissue": tissue.upper(), "place": " ".join(place)}
            cells |= {"abnormality": abnormality.upper(), "severity": severity.upper()}
            records.append(TableRow(number, cells, complete=True))
    return records


def _row(listed: ListedImage, files: dict[str, Path]) -> Row:
    label = _label(listed)
    if listed.image not in files:
        raise FileRejected(Reason.MISSING_IMAGE, "no such .pgm file in the folder")
    tissue = listed.records[0].cells["tissue"]
    abnormalities = {record.cells["abnormality"] for record in listed.records}
    laterality: Laterality = "R" if _number(listed) % 2 else "L"
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=files[listed.image],
        annotations=_annotations(listed, label),
        patient_id=_patient(listed),
        label=label,
        laterality=laterality,
        view="MLO",
        spacing_mm=SPACING_MM,
        density=TISSUES.get(tissue, tissue) or None,
        kind=parse_kind(" ".join(abnormalities - {NOTHING})),
        allow=allowed(laterality),
    )


def _files_of(listed: ListedImage, files: dict[str, Path]) -> Files:
    return Files((files[listed.image],) if listed.image in files else ())


def _annotations(listed: ListedImage, label: Label) -> tuple[Annotation, ...]:
    """Return circles around the findings of the image's severity; none if one has no position."""
    severe = [r for r in listed.records if _one_label(r).pathology is label.pathology]
    circles = [_circle(record) for record in severe]
    shapes = tuple(circle for circle in circles if circle)
    # A mask without one of the lesions would mark that lesion as healthy.
    return (Annotation(shapes=shapes),) if shapes and len(shapes) == len(circles) else ()


def _circle(record: TableRow) -> Shape | None:
    """Return the circle, or None if the line has a note or nothing in its place."""
    match = re.fullmatch(r"(\d{1,4}) (\d{1,4}) (\d{1,4})", record.cells["place"].strip())
    if match is None:
        return None
    x, y, radius = (float(number) for number in match.groups())
    return Shape("circle", ((x, HEIGHT - y),), (radius, radius))


def _one_label(record: TableRow) -> Label:
    if record.cells["abnormality"] == NOTHING:
        return Label(Pathology.NORMAL, ())
    severity = record.cells["severity"]
    if severity not in _SEVERITIES:
        raise FileRejected(Reason.BAD_LABEL, "neither NORM nor a severity of B or M")
    return Label(_SEVERITIES[severity], ())


def _label(listed: ListedImage) -> Label:
    return unite(_one_label(record) for record in listed.records)


def _number(listed: ListedImage) -> int:
    return int(listed.image.removeprefix("mdb"))


def _patient(listed: ListedImage) -> str:
    return f"MIAS{(_number(listed) + 1) // 2:03}"


def _statement(listed: ListedImage) -> PatientStatement:
    return state(listed, _patient(listed), _label)
