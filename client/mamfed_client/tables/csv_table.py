"""Read a CSV table as hospitals write them into rows with their line numbers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import DataError
from mamfed_common.runtime.bounded import TABLE_BYTES
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, plain, read_text

IGNORED_PREFIX = "x_"
"""Prefix of a site's own columns, such as ``x_comment``; other unknown columns are an error."""

DELIMITERS = ",;\t"
"""Supported delimiters; the first wins if a header holds several equally often."""

MAX_COLUMNS, MAX_ROWS, MAX_CELLS = 10_000, 1_000_000, 10_000_000
"""Maximum size of a table, counting the cells that the header promises for each row."""

_DECLARED = re.compile(r'"?sep=([,;|:\t])"?[,;\t]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""The line in which Excel and PowerShell declare the delimiter; Excel itself hides it."""


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        row_number: Line on which the row starts, as a text editor counts; the header is line 1.
        cells: Mapping from column name to the cell's stripped text.
        complete: Whether the row has as many cells as the header; extra cells must be empty.
    """

    row_number: int
    cells: dict[str, str]
    complete: bool


def read_table(
    path: Path, known: Collection[str] | None = None, required: Collection[str] = ()
) -> list[TableRow]:
    """Read a table with cells separated by ``,``, ``;`` or tabs; empty lines are skipped.

    A first line such as ``sep=;`` sets the delimiter. Unnamed columns at the right, which
    spreadsheets leave behind, are ignored.

    Args:
        path: The CSV file.
        known: Accepted column names in lower case; None accepts any.
        required: Column names that must be present.

    Raises:
        DataError: The file cannot be read or is empty, or a column is missing, unknown or repeated.
    """
    delimiter, start, text = dialect(_text(path))
    try:
        lines = list(islice(_numbered(text, delimiter, start), MAX_ROWS + 2))
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table: {error}") from None
    if not lines:
        raise DataError(f"{path}: the table is empty")
    width = len(lines[0][1])
    if width == 1 and any(mark in lines[0][1][0] for mark in DELIMITERS):
        raise DataError(f"{path}: each line is a single quoted cell; save the table as CSV again")
    _check_size(path, width, len(lines) - 1)
    header = [plain(name).lower() for name in lines[0][1]]
    while header and not header[-1]:
        header.pop()
    _check_header(path, header, known, required)
    records = [_record(number, cells, header, width) for number, cells in lines[1:]]
    if not records:
        raise DataError(f"{path}: the table has a header but no rows")
    return records


def _text(path: Path) -> str:
    try:
        return read_text(path, TABLE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(path, error)}") from None
    except NotTextError as error:
        raise DataError(f"{path}: {error}, in a spreadsheet as 'CSV UTF-8'") from None


def dialect(text: str) -> tuple[str, int, str]:
    """Return a CSV's delimiter, the line on which the table starts, and the table's text.

    Without a ``sep=`` line, the delimiter is the one that occurs most often in the header, outside
    of quotes.
    """
    if declared := _DECLARED.match(text):
        return declared[1], 2, text[declared.end() :]
    header = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0])
    return max(DELIMITERS, key=header.count), 1, text


def _numbered(text: str, delimiter: str, start: int) -> Iterator[tuple[int, list[str]]]:
    """Yield non-empty rows with the line they start on; quoted cells may contain newlines."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = start
    for cells in reader:
        if any(plain(cell) for cell in cells):
            yield start, cells
        start = first + reader.line_num


def concatenated(tables: Iterable[list[TableRow]]) -> list[TableRow]:
    """Concatenate tables; row numbers continue from one table to the next."""
    rows: list[TableRow] = []
    for table in tables:
        last = rows[-1].row_number if rows else 0
        rows += [row._replace(row_number=last + row.row_number) for row in table]
    return rows


def _check_size(path: Path, columns: int, rows: int) -> None:
    if columns > MAX_COLUMNS or rows > MAX_ROWS or rows * columns > MAX_CELLS:
        raise DataError(
            f"{path}: more than {MAX_COLUMNS:,} columns, {MAX_ROWS:,} rows or {MAX_CELLS:,} cells; "
            "split the data set"
        )


def _check_header(
    path: Path, header: list[str], known: Collection[str] | None, required: Collection[str]
) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} appears twice")
    if known is not None:
        _check_known(path, header, known)
    for name in required:
        if name not in header:
            raise DataError(f"{path}: column {name!r} is missing")


def _check_known(path: Path, header: list[str], known: Collection[str]) -> None:
    unknown = [c for c in header if c not in known and not c.startswith(IGNORED_PREFIX)]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ";"
        # If the header is missing, the first row is a patient's: do not quote it unless it
        # resembles a column name.
        column = repr(unknown[0]) if close else f"number {header.index(unknown[0]) + 1}"
        advice = f"name columns of your own {IGNORED_PREFIX}..."
        names = ", ".join(known)
        raise DataError(f"{path}: unknown column {column}{hint} known are {names}; {advice}")


def _record(row_number: int, cells: list[str], header: list[str], width: int) -> TableRow:
    """Map a row's cells to columns; ``width`` is the header's, including unnamed columns."""
    padded = cells + [""] * len(header)
    named = {name: cell.strip() for name, cell in zip(header, padded, strict=False)}
    unnamed = any(plain(cell) for cell in cells[len(header) :])
    complete = len(cells) in (len(header), width) and not unnamed
    return TableRow(row_number, named, complete)
