"""Write a ``labels.csv`` template: filled in as far as the files go, the rest for a radiologist."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from pathlib import Path

from mamfed_client.datasets.manifest import Row
from mamfed_client.imaging.rejections import Reason
from mamfed_client.preparation.ingest import Intake
from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.output_checks import check_folder_of

FILLED = ("image", "patient_id", "laterality", "view", "spacing_mm", "vendor")
TO_FILL = ("pathology", "birads", "density", "mask")


def write_blank_table(out: Path, intake: Intake) -> tuple[int, int]:
    """Write one row per image, with pseudonyms for patients and empty labels and masks.

    Images that are rejected only because nothing names their patient or side are listed too, with
    these cells empty: the table is where a person fills them in.

    Args:
        out: The table; it must not exist, so that labels someone has filled in are never replaced.
        intake: The result of reading the folder.

    Returns:
        The number of rows written, and of images omitted because a table cannot hold their names.

    Raises:
        OutputError: The file exists or cannot be written.
    """
    check_free(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FILLED, *TO_FILL], restval="", lineterminator="\n")
    writer.writeheader()
    listed = _listed(intake)
    rows = [row for row in listed if _can_be_named(row.image)]
    for row in rows:
        cells = {name: getattr(row, name) for name in FILLED}
        writer.writerow({name: "" if value is None else value for name, value in cells.items()})
    try:
        write_atomic(out, text.getvalue(), replace=False)
    except FileExistsError:  # created while the images were read
        raise OutputError(f"{out}: already exists; name another file") from None
    except OSError as error:
        raise cannot_write(out, error) from None
    return len(rows), len(listed) - len(rows)


def _listed(intake: Intake) -> list[Row]:
    """Return the rows of images that a filled-in table would make usable."""
    unnamed = [
        replace(intake.rejected_rows[rejected.row_number], patient_id="")
        for rejected in intake.rejected
        if rejected.reason in (Reason.NO_PATIENT, Reason.NO_LATERALITY)
        and rejected.row_number in intake.rejected_rows
    ]
    accepted = [case.row for case in intake.accepted]
    return sorted([*accepted, *unnamed], key=lambda row: row.row_number)


def _can_be_named(image: str) -> bool:
    """Tell whether a table's cell can hold a file name unchanged."""
    odd = image != image.strip() or "\\" in image or ":" in image or image[:1] in "=+-@"
    return image.isprintable() and not odd


def check_free(out: Path) -> None:
    """Check the path before starting work that may take hours.

    Raises:
        OutputError: The file exists, or its folder does not.
    """
    check_folder_of(out)
    if os.path.lexists(out):
        raise OutputError(f"{out}: already exists; name another file")
