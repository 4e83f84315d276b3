"""List CDD-CESM as distributed by TCIA; only the low-energy image of each contrast pair is used.

A low-energy image corresponds to a mammogram; the subtracted image shows the contrast medium.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.annotations.via import table_shapes
from mamfed_client.datasets.listing import files_below
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
from mamfed_client.tables.csv_table import read_table
from mamfed_client.tables.field_parsers import (
    Label,
    Pathology,
    parse_density,
    parse_kind,
    parse_label,
    parse_laterality,
    parse_view,
    unite,
)
from mamfed_common.errors import DataError

LAYOUT = "cdd-cesm"
IMAGES = "Low energy images of CDD-CESM"
TABLE = "Radiology-manual-annotations.csv"
HOLDS = "Radiology-manual-annotations.xlsx or .csv"

NEEDED = ("image_name", "patient_id", "side", "type", "view", "birads")
PATHOLOGY = "pathology classification/ follow up"
DENSITY = "breast density (acr)"
SUBTRACTED = "CM"


def is_here(folder: Path) -> bool:
    """Tell whether the folder has the annotation table, as CSV or workbook."""
    return bool(_named(folder, "annotation", ".csv") or _named(folder, "annotation", ".xlsx"))


def read(folder: Path) -> Manifest:
    """Read the annotation and region tables; subtracted images only state facts about patients.

    Raises:
        DataError: A table or the images are missing, or a table is not valid.
    """
    if not (folder / IMAGES).is_dir():
        raise DataError(f"{folder}: no folder {IMAGES!r}")
    records = read_table(_table(folder), required=(*NEEDED, PATHOLOGY, DENSITY))
    listed = by_image(records, lambda record: record.cells["image_name"])
    low_energy = [image for image in listed if not _is_subtracted(image)]
    files = {_key(path.name): path for path in files_below(folder / IMAGES)}
    parse = partial(_row, files=files, regions=_regions(folder))
    manifest = assemble(
        folder, LAYOUT, low_energy, parse, _statement, partial(_files_of, files=files)
    )
    statements = [_statement(image) for image in listed if _is_subtracted(image)]
    manifest.statements.extend(statement for statement in statements if statement.patient_id)
    return manifest


def _named(folder: Path, word: str, suffix: str) -> list[Path]:
    """Find files like ``Radiology-manual-annotations``; the dashes differ between versions."""
    tables = [path for path in folder.glob("[Rr]adiology*") if path.suffix.lower() == suffix]
    return sorted(path for path in tables if word in path.name.lower() and path.is_file())


def _table(folder: Path) -> Path:
    tables = _named(folder, "annotation", ".csv")
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(f"{folder}: {len(tables)} annotation tables; keep only that of sheet 'all'")
    hint = f"open the workbook and save its sheet 'all' as {TABLE}, 'CSV UTF-8'"
    raise DataError(f"{folder}: no {TABLE} in this folder; {hint}")


def _key(name: str) -> str:
    """Normalise what varies in names: capitals, suffix, a blank before it as in ``CC .jpg``."""
    name = name.strip().lower()
    return PurePath(name).stem.strip() if name.endswith(".jpg") else name


class _Regions(NamedTuple):
    """Outlines by image, and the images with an outline that cannot be parsed."""

    shapes: dict[str, tuple[Shape, ...]]
    bad: frozenset[str]


def _regions(folder: Path) -> _Regions:
    """Read the outlines; an image may be listed under several spellings of its file name."""
    regions: defaultdict[str, tuple[Shape, ...]] = defaultdict(tuple)
    bad: set[str] = set()
    for path in _named(folder, "segmentation", ".csv"):
        try:
            table = table_shapes(path)
        except FileRejected as error:
            raise DataError(f"{path}: {error.detail}") from None
        for name, outlines in table.shapes.items():
            regions[_key(name)] += outlines
        bad |= {_key(name) for name in table.bad}
    return _Regions(regions, frozenset(bad))


def _is_subtracted(listed: ListedImage) -> bool:
    return listed.records[0].cells["type"].upper() == SUBTRACTED


def _row(listed: ListedImage, files: dict[str, Path], regions: _Regions) -> Row:
    cells = listed.records[0].cells
    patient_id = named(cells["patient_id"], "patient_id")
    label = _label(listed)
    laterality = parse_laterality(cells["side"])
    image_path = files.get(_key(listed.image)) if listed.image else None
    if image_path is None:
        raise FileRejected(Reason.MISSING_IMAGE, f"no such file in {IMAGES!r}")
    outlines = () if label.pathology is Pathology.NORMAL else _outlines(listed.image, regions)
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=image_path,
        annotations=(Annotation(shapes=outlines),) if outlines else (),
        patient_id=patient_id,
        label=label,
        laterality=laterality,
        view=parse_view(cells["view"]),
        density=parse_density(cells[DENSITY]),
        kind=parse_kind(cells.get("findings", "")),
        allow=allowed(laterality),
    )


def _files_of(listed: ListedImage, files: dict[str, Path]) -> Files:
    image_path = files.get(_key(listed.image)) if listed.image else None
    return Files((image_path,) if image_path else ())


def _outlines(image: str, regions: _Regions) -> tuple[Shape, ...]:
    """Return an image's outlines.

    Raises:
        FileRejected: One of them cannot be parsed; the others would mark that lesion as healthy.
    """
    if _key(image) in regions.bad:
        raise FileRejected(Reason.UNREADABLE_MASK, "a region of the image cannot be parsed")
    return regions.shapes.get(_key(image), ())


def _label(listed: ListedImage) -> Label:
    rows = [record.cells for record in listed.records]
    return unite(parse_label(cells[PATHOLOGY], cells["birads"]) for cells in rows)


def _statement(listed: ListedImage) -> PatientStatement:
    return state(listed, listed.records[0].cells["patient_id"], _label)
