"""List CBIS-DDSM as distributed by TCIA: four tables, one row per abnormality, and DICOM folders.

Only the first component of a path in the tables, ``Mass-Training_P_00001_LEFT_CC``, matches the
download: folders and files below it have other names, and the crop and the mask of an abnormality
may be swapped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

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
    named,
    state,
)
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.tables.csv_table import TableRow, concatenated, read_table
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

LAYOUT = "cbis-ddsm"
TABLES = tuple(
    f"{kind}_case_description_{part}_set.csv"
    for kind in ("mass", "calc")
    for part in ("train", "test")
)
HOLDS = "mass_case_description_train_set.csv or another of its four tables"

IMAGE, MASK = "image file path", "roi mask file path"
NEEDED = (
    "patient_id",
    "left or right breast",
    "image view",
    "assessment",
    "pathology",
    IMAGE,
    MASK,
)

PART = "part of the split"
"""An added column: the tables have none, as each table holds one part."""

HEADER_BYTES = 16384
"""Upper limit of the size difference between the headers of two of these files."""

Folders = dict[str, list[Path]]

_FOLDER = re.compile(
    r"(?:Mass|Calc)-(?:Training|Test)_(?P<picture>P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO))(?:_\d+)?"
)


def is_here(folder: Path) -> bool:
    """Tell whether the folder has one of the tables."""
    return any(table_in(folder, name) for name in TABLES)


def read(folder: Path) -> Manifest:
    """Read the tables that exist; row numbers continue from one table to the next.

    The official split is used unless it puts a patient in two parts, as the mass and calcification
    tables together do; in that case no split is declared.

    Raises:
        DataError: There is no table, or a table is not valid.
    """
    tables = [table for name in TABLES if (table := table_in(folder, name))]
    if not tables:
        raise DataError(f"{folder}: none of {', '.join(TABLES)} in this folder")
    records = concatenated(_records(table) for table in tables)
    files = _files(folder)
    first = _first_folders(records, files)
    listed = by_image(records, lambda record: first[_folder_name(record, IMAGE)])
    split = _split(listed)
    with Decoder() as decoder:
        parse = partial(_row, files=files, split=split, decoder=decoder)
        statement = partial(_statement, split=split)
        return assemble(folder, LAYOUT, listed, parse, statement, partial(_files_of, files=files))


def _records(table: Path) -> list[TableRow]:
    """Read a table and add its part of the split to each row."""
    part = "train" if "train" in table.name.lower() else "test"
    records = read_table(table, required=NEEDED)
    return [record._replace(cells=record.cells | {PART: part}) for record in records]


def _files(folder: Path) -> Folders:
    """Find the DICOM files of each folder that a table may name, wherever that folder is."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files_below(folder):
        named_folders = [p for p in path.relative_to(folder).parts[:-1] if _FOLDER.fullmatch(p)]
        if named_folders and path.suffix.lower() == ".dcm":
            files[named_folders[-1]].append(path)
    return dict(files)


def _folder_name(record: TableRow, column: str) -> str:
    """Return the first component of a path cell; the others differ from the download."""
    return re.split(r"[/\\]", record.cells[column])[0]


def _first_folders(records: Sequence[TableRow], files: Folders) -> dict[str, str]:
    """Map each image folder to the first folder with the same picture, which is usually itself.

    A breast with both a mass and calcifications has a folder for each. If they counted as two
    images, one would be rejected as a duplicate, and the mask of a malignant finding with it.
    """
    first: dict[str, str] = {}
    shown: dict[str, str] = {}
    for name in dict.fromkeys(_folder_name(record, IMAGE) for record in records):
        match = _FOLDER.fullmatch(name)
        earlier = shown.setdefault(match["picture"], name) if match else name
        first[name] = earlier if _hold_one_image(files, name, earlier) else name
    return first


def _hold_one_image(files: Folders, *names: str) -> bool:
    """Tell whether each folder has exactly one file, equal in size apart from the header."""
    paths_by_folder = [files.get(name, []) for name in names]
    if any(len(paths) != 1 for paths in paths_by_folder):
        return False
    sizes = [paths[0].stat().st_size for paths in paths_by_folder]
    return max(sizes) - min(sizes) <= HEADER_BYTES


def _split(listed: Sequence[ListedImage]) -> dict[str, str]:
    """Return the official part of each patient; empty if any patient is in two parts."""
    parts: dict[str, str] = {}
    for cells in (record.cells for image in listed for record in image.records):
        if parts.setdefault(cells["patient_id"], cells[PART]) != cells[PART]:
            return {}
    return parts


def _row(listed: ListedImage, files: Folders, split: dict[str, str], decoder: Decoder) -> Row:
    cells = listed.records[0].cells
    patient_id = named(cells["patient_id"], "patient_id")
    label = _label(listed)
    laterality = parse_laterality(cells["left or right breast"])
    image_path = _image(files.get(listed.image, []))
    return Row(
        row_number=listed.row_number,
        image=listed.image,
        image_path=image_path,
        annotations=_annotations(listed.records, image_path, files, decoder),
        patient_id=patient_id,
        label=label,
        laterality=laterality,
        view=parse_view(cells["image view"]),
        density=parse_density(cells.get("breast_density", cells.get("breast density", ""))),
        kind=parse_kind(" ".join(r.cells.get("abnormality type", "") for r in listed.records)),
        split=split.get(patient_id, ""),
        allow=allowed(laterality, Reason.SECONDARY_CAPTURE),
    )


def _files_of(listed: ListedImage, files: Folders) -> Files:
    """List the files of all image folders with this picture, and the masks with their crops."""
    images, outlines = (
        [path for r in listed.records for path in files.get(_folder_name(r, column), ())]
        for column in (IMAGE, MASK)
    )
    return Files(tuple(images), tuple(outlines))


def _image(paths: Sequence[Path]) -> Path:
    if len(paths) != 1:
        detail = f"{len(paths)} files in the folder that the table names; expected one"
        raise FileRejected(Reason.MISSING_IMAGE, detail)
    return paths[0]


def _annotations(
    records: Sequence[TableRow], image_path: Path, files: Folders, decoder: Decoder
) -> tuple[Annotation, ...]:
    """Find the masks of the malignant abnormalities or, if there are none, all available masks.

    Raises:
        FileRejected: The mask of a malignant abnormality is missing; the remaining masks would
            mark that lesion as healthy.
    """
    malignant = [r for r in records if _one_label(r).pathology is Pathology.MALIGNANT]
    masks = []
    for record in malignant or records:
        try:
            candidates = files.get(_folder_name(record, MASK), [])
            masks.append(_mask(candidates, image_path, decoder))
        except FileRejected:
            if malignant:
                raise
    return tuple(Annotation(mask, image_path.name) for mask in masks)


def _mask(candidates: Sequence[Path], image_path: Path, decoder: Decoder) -> Path:
    """Distinguish the mask from the crop by size if possible, otherwise by content."""
    if not candidates:
        raise FileRejected(Reason.MISSING_MASK, "no files in the mask folder that the table names")
    image_bytes = image_path.stat().st_size
    sized = [path for path in candidates if _has_size_of_mask(path.stat().st_size, image_bytes)]
    if len(candidates) == 1 or len(sized) == 1:
        return [*sized, *candidates][0]
    by_size = sorted(candidates, key=lambda path: path.stat().st_size)
    mask = next((path for path in by_size if _is_mask(path, decoder)), None)
    if mask is None:
        raise FileRejected(Reason.UNREADABLE_MASK, f"none of the {len(candidates)} files is a mask")
    return mask


def _is_mask(path: Path, decoder: Decoder) -> bool:
    try:
        return decoder.is_mask(path)
    except FileRejected:  # another file may be readable
        return False


def _has_size_of_mask(mask_bytes: int, image_bytes: int) -> bool:
    """Tell whether a file is as large as the uncompressed 16-bit image, or half as large."""
    return any(abs(mask_bytes * n - image_bytes) <= HEADER_BYTES for n in (1, 2))


def _one_label(record: TableRow) -> Label:
    return parse_label(record.cells["pathology"], record.cells["assessment"])


def _label(listed: ListedImage) -> Label:
    return unite(_one_label(record) for record in listed.records)


def _statement(listed: ListedImage, split: dict[str, str]) -> PatientStatement:
    patient_id = listed.records[0].cells["patient_id"]
    return state(listed, patient_id, _label, split.get(patient_id, ""))
