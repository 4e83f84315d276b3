"""CBIS-DDSM as TCIA gives it -> manifest: four tables, one row an abnormality, and DICOM folders.

Only the first part of a path in the tables is true, ``Mass-Training_P_00001_LEFT_CC``: downloads
name the folders and files below it anew, and crop and mask of an abnormality swap places.
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
"""A column that the tables do not have: each is for one part."""

HEADER_BYTES = 16384
"""More than the headers of two of these files differ by."""

Folders = dict[str, list[Path]]

_FOLDER = re.compile(
    r"(?:Mass|Calc)-(?:Training|Test)_(?P<picture>P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO))(?:_\d+)?"
)


def is_here(folder: Path) -> bool:
    """Tell whether the folder has one of the tables."""
    return any(table_in(folder, name) for name in TABLES)


def read(folder: Path) -> Manifest:
    """Read the tables that are there, row numbers going on from one to the next.

    The official split is taken unless it puts a patient in two parts, as mass and calcification
    tables together do: then it is left aside and nothing is declared.

    Raises:
        DataError: There is no table, or one makes no sense.
    """
    tables = [table for name in TABLES if (table := table_in(folder, name))]
    if not tables:
        raise DataError(f"{folder}: none of {', '.join(TABLES)} in this folder")
    records = concatenated(_records(table) for table in tables)
    files = _files(folder)
    first = _first_folders(records, files)
    listed = by_image(records, lambda record: first[_place(record, IMAGE)])
    split = _split(listed)
    with Decoder() as decoder:
        understand = partial(_row, files=files, split=split, decoder=decoder)
        said = partial(_statement, split=split)
        return assemble(folder, LAYOUT, listed, understand, said, partial(_files_of, files=files))


def _records(table: Path) -> list[TableRow]:
    """Read a table and add to each row the part that the table is for."""
    part = "train" if "train" in table.name.lower() else "test"
    records = read_table(table, needed=NEEDED)
    return [record._replace(cells=record.cells | {PART: part}) for record in records]


def _files(folder: Path) -> Folders:
    """Find the DICOM files below each folder that a table may name, wherever it lies."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files_below(folder):
        named_folders = [p for p in path.relative_to(folder).parts[:-1] if _FOLDER.fullmatch(p)]
        if named_folders and path.suffix.lower() == ".dcm":
            files[named_folders[-1]].append(path)
    return dict(files)


def _place(record: TableRow, column: str) -> str:
    """Return the first part of a path cell: the rest is not as downloads name it."""
    return re.split(r"[/\\]", record.cells[column])[0]


def _first_folders(records: Sequence[TableRow], files: Folders) -> dict[str, str]:
    """Return folder of an image -> the first folder that holds the same picture, mostly itself.

    A breast with a mass and with calcifications has a folder for each. Taken for two images, one
    would be left out as a duplicate, and with it a malignant finding's mask.
    """
    first: dict[str, str] = {}
    shown: dict[str, str] = {}
    for name in dict.fromkeys(_place(record, IMAGE) for record in records):
        match = _FOLDER.fullmatch(name)
        earlier = shown.setdefault(match["picture"], name) if match else name
        first[name] = earlier if _hold_one_image(files, name, earlier) else name
    return first


def _hold_one_image(files: Folders, *names: str) -> bool:
    """Tell whether each folder has one file, of the same size but for the header."""
    found = [files.get(name, []) for name in names]
    if any(len(paths) != 1 for paths in found):
        return False
    sizes = [paths[0].stat().st_size for paths in found]
    return max(sizes) - min(sizes) <= HEADER_BYTES


def _split(listed: Sequence[ListedImage]) -> dict[str, str]:
    """Return patient -> official part, or nothing where a patient is in two."""
    parts: dict[str, str] = {}
    for cells in (record.cells for one in listed for record in one.records):
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
    """List the image, the images of folders that hold the same one, and masks with their crops."""
    places = [[_place(r, column) for r in listed.records] for column in (IMAGE, MASK)]
    images, outlines = ([p for place in some for p in files.get(place, ())] for some in places)
    return Files(tuple(images), tuple(outlines))


def _image(found: Sequence[Path]) -> Path:
    if len(found) != 1:
        detail = f"{len(found)} files in the folder that the table names; one is expected"
        raise FileRejected(Reason.MISSING_IMAGE, detail)
    return found[0]


def _annotations(
    records: Sequence[TableRow], image_path: Path, files: Folders, decoder: Decoder
) -> tuple[Annotation, ...]:
    """Find the masks of the malignant abnormalities; without any, those of all that are there.

    Raises:
        Refusal: The mask of a malignant abnormality is missing: what is left would be a target
            with a hole.
    """
    malignant = [r for r in records if _one_label(r).pathology is Pathology.MALIGNANT]
    masks = []
    for record in malignant or records:
        try:
            found = files.get(_place(record, MASK), [])
            masks.append(_mask(found, image_path, decoder))
        except FileRejected:
            if malignant:
                raise
    return tuple(Annotation(mask, image_path.name) for mask in masks)


def _mask(found: Sequence[Path], image_path: Path, decoder: Decoder) -> Path:
    """Tell the mask from the crop by its size where that is clear, else by its content."""
    if not found:
        raise FileRejected(
            Reason.MISSING_MASK, "no files in the mask's folder that the table names"
        )
    image_bytes = image_path.stat().st_size
    sized = [path for path in found if _has_size_of_mask(path.stat().st_size, image_bytes)]
    if len(found) == 1 or len(sized) == 1:
        return [*sized, *found][0]
    by_size = sorted(found, key=lambda path: path.stat().st_size)
    mask = next((path for path in by_size if _is_mask(path, decoder)), None)
    if mask is None:
        raise FileRejected(Reason.UNREADABLE_MASK, f"none of the {len(found)} files is a mask")
    return mask


def _is_mask(path: Path, decoder: Decoder) -> bool:
    try:
        return decoder.is_mask(path)
    except FileRejected:  # another file may be whole
        return False


def _has_size_of_mask(mask_bytes: int, image_bytes: int) -> bool:
    """Tell whether a file holds one or two bytes for each two bytes of an uncompressed image."""
    return any(abs(mask_bytes * n - image_bytes) <= HEADER_BYTES for n in (1, 2))


def _one_label(record: TableRow) -> Label:
    return parse_label(record.cells["pathology"], record.cells["assessment"])


def _label(listed: ListedImage) -> Label:
    return unite(_one_label(record) for record in listed.records)


def _statement(listed: ListedImage, split: dict[str, str]) -> PatientStatement:
    patient_id = listed.records[0].cells["patient_id"]
    return state(listed, patient_id, _label, split.get(patient_id, ""))
