"""Write a split cohort as one folder per virtual hospital, in the plain layout.

Files are copied, never linked: a link would share permissions and edits with the data set, and an
image with a look is a new image anyway. Unusable rows stay in the table without an image, because
their labels still count for their patient. The table's other columns, such as a review mark, are
copied too.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import track

from mamfed_client.annotations.classes import MalignantClasses
from mamfed_client.datasets import plain
from mamfed_client.datasets.listing import table_in
from mamfed_client.datasets.manifest import PatientStatement, Row
from mamfed_client.imaging.raster import SUFFIXES
from mamfed_client.imaging.rejections import FileRejected
from mamfed_client.preparation.ingest import AcceptedImage
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.tables.csv_table import read_table
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import IMAGE_BYTES, read_bytes
from mamfed_common.runtime.files import cannot_write, private_directory, write_atomic
from mamfed_common.runtime.lock import LOCK, exclusive_folder
from mamfed_common.runtime.output_checks import check_folder, check_outside
from mamfed_common.runtime.seeds import generator
from mamfed_common.runtime.terminal import console
from mamfed_common.runtime.text import read_text
from mamfed_simulations.federation.appearance import ORIGINAL, Appearance, with_look
from mamfed_simulations.federation.partition import DealtCohort, Hospital

RECORD = "partition.json"
UNREADABLE = "not understood"
"""Pathology of a row with an unreadable label; it still keeps its patient out of stage 1."""
OF_FILES = ("image", "mask", "mask_values", "classes")
"""Columns about files: empty in a row without an image; a redrawn mask has no classes."""
PICTURES = SUFFIXES | {".bmp"}

Cells = dict[str, str]


def write_hospitals(dealt: DealtCohort, out: Path) -> None:
    """Write every hospital's folder; the same split gives the same bytes.

    Raises:
        OutputError: ``out`` lies in the data set, holds something else, or cannot be written.
        SetupError: Another process is writing a partition there.
    """
    record = json.dumps(dealt.values(), indent=2) + "\n"
    check_place(out, dealt.partition.data)
    _check_record(out, record)
    source = _Cohort(dealt)
    try:
        with exclusive_folder(out, "another partition"):
            _check_record(out, record)  # another process may have finished in the meantime
            write_atomic(out / RECORD, record)
            with Decoder() as decoder:
                for hospital in dealt.hospitals:
                    folder = private_directory(out / hospital.name)
                    _write_hospital(folder, hospital, source, decoder)
    except OSError as error:
        raise cannot_write(out, error) from None


def check_place(out: Path, data: Path) -> None:
    """Check that ``out`` can hold a partition, before any image is read.

    Raises:
        OutputError: It lies in the data, holds something else, or cannot be written.
    """
    check_outside(out, [data])
    check_folder(out, _is_begun, "partition")


def _check_record(out: Path, record: str) -> None:
    """Check that ``out`` holds no other partition."""
    if (out / RECORD).is_file() and read_text(out / RECORD) != record:
        raise OutputError(f"{out}: holds another partition; choose a new folder")


def _is_begun(out: Path) -> bool:
    return (out / RECORD).is_file() or (out / LOCK).exists()


class _Cohort:
    """The rows of a cohort in the form of a hospital's table."""

    def __init__(self, dealt: DealtCohort) -> None:
        self.seed, self.folder = dealt.partition.seed, dealt.partition.data
        self.layout = dealt.intake.layout
        self.cases = {case.row.row_number: case for case in dealt.intake.accepted}
        self.statements = dealt.intake.statements
        self.written: dict[int, Cells] = {}
        if self.layout == plain.LAYOUT:
            table = table_in(self.folder, plain.TABLE)
            assert table is not None
            records = read_table(table, plain.COLUMNS)
            self.written = {r.row_number: r.cells for r in records if r.complete}

    def cells(self, statement: PatientStatement) -> Cells:
        """Return a row's cells; those of an unusable row name no files."""
        case = self.cases.get(statement.row_number)
        own = {k: v for k, v in self.written.get(statement.row_number, {}).items() if v}
        if case is None:
            return {**_stub(statement), **{k: v for k, v in own.items() if k not in OF_FILES}}
        return {**_cells_of(case.row, self.layout, statement.split), **own}

    def mask_name(self, row: Row, path: Path, number: int) -> PurePosixPath:
        """Return a mask's name from the table, or a name made of the row number."""
        if self.layout == plain.LAYOUT:
            return PurePosixPath(path.relative_to(self.folder).as_posix())
        return PurePosixPath("masks") / f"{row.row_number:05d}-{number}{path.suffix.lower()}"

    def columns(self) -> list[str]:
        """Return the table's columns: the known ones, then the data set's own."""
        own = dict.fromkeys(name for cells in self.written.values() for name in cells)
        return [*plain.COLUMNS, *(name for name in own if name not in plain.COLUMNS)]


def _write_hospital(folder: Path, hospital: Hospital, cohort: _Cohort, decoder: Decoder) -> None:
    own = [s for s in cohort.statements if s.patient_id in hospital.patients]
    lines = []
    for statement in track(own, f"writing {hospital.name}", console=console(), transient=True):
        cells, case = cohort.cells(statement), cohort.cases.get(statement.row_number)
        if case is not None:
            cells |= _write_image(folder, case, cells["image"], hospital.look, cohort, decoder)
            cells |= _write_masks(folder, case, cohort, decoder)
        lines.append(cells)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, cohort.columns(), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomic(folder / plain.TABLE, table.getvalue())


def _write_image(
    folder: Path,
    case: AcceptedImage,
    cell: str,
    look: Appearance,
    cohort: _Cohort,
    decoder: Decoder,
) -> Cells:
    """Copy an image, or write it with a look; return its table cell."""
    path = PurePosixPath(PureWindowsPath(cell).as_posix())
    if look == ORIGINAL:
        _put(folder, path, read_bytes(case.row.image_path, IMAGE_BYTES))
        return {"image": str(path)}
    mammogram, sha256 = decoder.mammogram(case.row.image_path, case.row.allow)
    grain = generator(cohort.seed, "grain", sha256)
    path = path if path.suffix == ".png" else path.with_name(f"{path.name}.png")
    _put(folder, path, _png(with_look(mammogram, look, grain)))
    return {"image": str(path)}


def _write_masks(folder: Path, case: AcceptedImage, cohort: _Cohort, decoder: Decoder) -> Cells:
    """Copy masks that are pictures and redraw all others; return their table cells.

    Other formats name their image, which may have a new name here.
    """
    row = case.row
    paths = [a.path for a in row.annotations if a.path is not None]
    plain = len(paths) == len(row.annotations) and all(
        a.malignant == MalignantClasses() for a in row.annotations
    )
    if plain and all(p.suffix.lower() in PICTURES for p in paths):
        names = [cohort.mask_name(row, path, i) for i, path in enumerate(paths)]
        for name, path in zip(names, paths, strict=True):
            _put(folder, name, read_bytes(path, IMAGE_BYTES))
        return {"mask": "|".join(map(str, names))}
    no_mask = dict.fromkeys(OF_FILES[1:], "")
    try:
        marked, _ = decoder.mask(row.annotations, case.result.rows, case.result.columns)
    except FileRejected:  # boxes only, or the outline of a benign finding, which is not used
        return no_mask
    name = PurePosixPath("masks") / f"{row.row_number:05d}.png"
    _put(folder, name, _png(marked.mask.astype(np.uint8) * np.uint8(255)))
    return no_mask | {"mask": str(name)}


def _put(folder: Path, name: PurePosixPath, content: bytes) -> None:
    path = folder / name
    private_directory(path.parent)
    write_atomic(path, content)


def _png(image: npt.NDArray[Any]) -> bytes:
    _, encoded = cv2.imencode(".png", image)
    return encoded.tobytes()


def _cells_of(row: Row, layout: str, split: str) -> Cells:
    """Return an image's cells, including what only its file header says: a PNG copy has none."""
    suffix = row.image_path.suffix.lower()
    return {
        "image": f"images/{row.row_number:05d}{suffix}",
        "patient_id": row.patient_id,
        "laterality": row.laterality or "",
        "view": row.view or "",
        "pathology": row.label.pathology or "",
        "birads": "|".join(map(str, row.label.birads)),
        "density": row.density or "",
        "finding": {"both": "mass, calcification"}.get(row.kind or "", row.kind or ""),
        "spacing_mm": "" if row.spacing_mm is None else f"{row.spacing_mm:.6g}",
        "vendor": row.vendor or "",
        "source": layout,
        "split": split,
    }


def _stub(statement: PatientStatement) -> Cells:
    label = statement.label
    return {
        "patient_id": statement.patient_id,
        "pathology": UNREADABLE if label is None else label.pathology or "",
        "birads": "" if label is None else "|".join(map(str, label.birads)),
        "split": statement.split,
    }
