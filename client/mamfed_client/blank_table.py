"""``labels.csv`` for a folder that has none: what the files say, and cells for a radiologist."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from mamfed_client.intake import Intake
from mamfed_common.errors import OutputError
from mamfed_common.files import write_atomic

FILLED = ("image", "patient_id", "laterality", "view", "spacing_mm", "vendor")
TO_FILL = ("pathology", "birads", "density", "mask")


def write_blank_table(out: Path, intake: Intake) -> None:
    """Write one row an accepted image; patients are pseudonyms, labels and masks are left open.

    Args:
        out: The table, which must not exist: labels that someone has filled in are not replaced.
        intake: What the folder gave.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    check_free(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FILLED, *TO_FILL], restval="", lineterminator="\n")
    writer.writeheader()
    for row in (case.row for case in intake.cases):
        said = {name: getattr(row, name) for name in FILLED}
        writer.writerow({name: "" if value is None else value for name, value in said.items()})
    try:
        write_atomic(out, text.getvalue())
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None


def check_free(out: Path) -> None:
    """Refuse before the work, which may take hours.

    Raises:
        OutputError: The file exists, or its folder does not.
    """
    if out.exists():
        raise OutputError(f"{out}: exists; name another file")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: its folder does not exist; make it, or choose another one")
