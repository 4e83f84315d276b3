"""``labels.csv`` for a folder that has none: what the files say, and cells for a radiologist."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from mamfed_client.preparation.ingest import Intake
from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.output_checks import check_folder_of

FILLED = ("image", "patient_id", "laterality", "view", "spacing_mm", "vendor")
TO_FILL = ("pathology", "birads", "density", "mask")


def write_blank_table(out: Path, intake: Intake) -> int:
    """Write one row an accepted image; patients are pseudonyms, labels and masks are left open.

    Args:
        out: The table, which must not exist: labels that someone has filled in are not replaced.
        intake: What the folder gave.

    Returns:
        How many images are left out since a table cannot hold their names.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    check_free(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FILLED, *TO_FILL], restval="", lineterminator="\n")
    writer.writeheader()
    rows = [case.row for case in intake.cases if _can_be_named(case.row.image)]
    for row in rows:
        said = {name: getattr(row, name) for name in FILLED}
        writer.writerow({name: "" if value is None else value for name, value in said.items()})
    try:
        write_atomic(out, text.getvalue(), replace=False)
    except FileExistsError:  # made while we read the images
        raise OutputError(f"{out}: exists; name another file") from None
    except OSError as error:
        raise cannot_write(out, error) from None
    return len(intake.cases) - len(rows)


def _can_be_named(image: str) -> bool:
    """Tell whether a table's cell can hold a file name and lead back to the file."""
    odd = image != image.strip() or "\\" in image or ":" in image or image[:1] in "=+-@"
    return image.isprintable() and not odd


def check_free(out: Path) -> None:
    """Refuse before the work, which may take hours.

    Raises:
        OutputError: The file exists, or its folder does not.
    """
    check_folder_of(out)
    if os.path.lexists(out):
        raise OutputError(f"{out}: exists; name another file")
