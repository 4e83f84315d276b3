"""A worklist: a CSV table of the studies to pull, and what is known of each.

Each row names a study by ``accession`` or ``study`` (its UID), or a patient by ``patient_id``. The
other columns are those of ``labels.csv`` (docs/data.md) that describe an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mamfed_client.archive.objects import Query, sound_uid
from mamfed_client.imaging.rejections import FileRejected
from mamfed_client.tables.csv_table import TableRow, read_table
from mamfed_client.tables.field_parsers import Pathology, parse_label, parse_laterality
from mamfed_common.errors import DataError

NAMES = ("accession", "patient_id", "study")
"""Columns that name what to pull."""
LABELS = ("pathology", "birads", "density", "finding")
"""Columns that are passed on to ``labels.csv``."""
COLUMNS = (*NAMES, "laterality", *LABELS)
WORST = tuple(reversed(Pathology))
WILDCARDS = frozenset("*?\\")
"""Characters by which a query matches more than one value (PS3.4 C.2.2.2)."""


class WorklistRow(NamedTuple):
    """One row.

    Attributes:
        number: Its line in the file.
        query: What to look for.
        laterality: The breast that it describes, L or R; empty: both.
        labels: Its cells by column of ``LABELS``.
    """

    number: int
    query: Query
    laterality: str
    labels: dict[str, str]


class Worklist(NamedTuple):
    """A worklist's rows, and the label columns that it has."""

    rows: tuple[WorklistRow, ...]
    columns: tuple[str, ...]

    def queries(self) -> dict[Query, list[WorklistRow]]:
        """Return the rows by query, in the file's order."""
        found: dict[Query, list[WorklistRow]] = {}
        for row in self.rows:
            found.setdefault(row.query, []).append(row)
        return found


def read_worklist(path: Path, dates: Query) -> Worklist:
    """Read a worklist.

    Args:
        path: The CSV file.
        dates: The range of dates that holds for all rows.

    Raises:
        DataError: It is no such table, or a row cannot be used; the line is named, not the patient.
    """
    table = read_table(path, COLUMNS)
    columns = table[0].cells.keys()
    if not set(NAMES) & columns:
        raise DataError(f"{path}: needs a column {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    rows = tuple(_row(path, row, dates) for row in table)
    return Worklist(rows, tuple(name for name in LABELS if name in columns))


def _row(path: Path, row: TableRow, dates: Query) -> WorklistRow:
    where = f"{path}: line {row.row_number}"
    cells = row.cells
    accession, patient, study = (cells.get(name, "") for name in NAMES)
    if not row.complete or not (accession or patient or study):
        raise DataError(f"{where}: expected an accession number, a patient or a study")
    if WILDCARDS & set(accession + patient) or not (accession + patient).isprintable():
        raise DataError(f"{where}: expected exact values, without * ? \\ or control characters")
    if max(len(accession), len(patient)) > 64 or (study and not sound_uid(study)):
        raise DataError(f"{where}: a value longer than 64 characters, or not a UID")
    try:
        parse_label(cells.get("pathology", ""), cells.get("birads", ""))
        laterality = parse_laterality(cells.get("laterality", "")) or ""
    except FileRejected as error:
        raise DataError(f"{where}: {error.reason}: {error.detail}") from None
    query = dates._replace(patient=patient, accession=accession, study=study)
    return WorklistRow(
        row.row_number, query, laterality, {name: cells.get(name, "") for name in LABELS}
    )


def labels_of(rows: Sequence[WorklistRow], laterality: str) -> Mapping[str, str]:
    """Return an image's labels from all rows about its study and its breast.

    Several BI-RADS categories are joined by ``|``; of pathologies the worst counts, and of other
    columns the first that is filled in.
    """
    about = [row for row in rows if row.laterality in ("", laterality)]
    categories = [row.labels["birads"] for row in about if row.labels["birads"]]
    labels = {
        name: next((row.labels[name] for row in about if row.labels[name]), "") for name in LABELS
    }
    labels["birads"] = "|".join(dict.fromkeys(categories))
    parsed = [parse_label(row.labels["pathology"], "").pathology for row in about]
    ranked = sorted((p for p in parsed if p is not None), key=WORST.index)
    return labels | {"pathology": ranked[0].value if ranked else ""}
