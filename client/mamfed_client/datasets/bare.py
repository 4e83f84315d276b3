"""List a folder of DICOM files or pictures without a table; everything else is in the files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mamfed_client.datasets.listing import files_below
from mamfed_client.datasets.manifest import Manifest, Row
from mamfed_client.datasets.other_files import is_sidecar
from mamfed_client.imaging.rejections import FileRejected, Reason, rejection
from mamfed_client.tables.field_parsers import Label
from mamfed_common.errors import DataError
from mamfed_common.runtime.output_checks import is_below

LAYOUT = "dicom"
HOLDS = "DICOM files or pictures"


def is_here(folder: Path) -> bool:
    """Tell whether any file may be a picture or DICOM, whose file names often have no suffix."""
    return next(_candidates(folder), None) is not None


def read(folder: Path) -> Manifest:
    """List the files below a folder.

    Raises:
        DataError: No file may be an image, or a folder cannot be listed.
    """
    rows, rejected = [], []
    candidates = list(_candidates(folder))
    for number, path in enumerate(candidates, start=1):
        image = path.relative_to(folder).as_posix()
        try:
            rows.append(Row(number, image, _inside(folder, path), (), "", Label(None, ())))
        except FileRejected as error:
            rejected.append(rejection(number, image, error))
    if not rows and not rejected:
        raise DataError(f"{folder}: no {HOLDS} in this folder")
    return Manifest(folder, LAYOUT, rows, rejected, [], set(candidates))


def _candidates(folder: Path) -> Iterator[Path]:
    for path in files_below(folder):
        if is_sidecar(path):
            continue
        is_listed_already = path.is_dir() and is_below(path, folder)
        if path.is_file() or (path.is_symlink() and not is_listed_already):
            yield path


def _inside(folder: Path, path: Path) -> Path:
    """Return a file's path.

    Raises:
        FileRejected: The path is a link that leads out of the folder or to no file.
    """
    if not is_below(path, folder):
        raise FileRejected(Reason.PATH_LEAVES_FOLDER, "a link that leads out of the folder")
    if not path.is_file():
        raise FileRejected(Reason.MISSING_IMAGE, "a link to a file that does not exist")
    return path
