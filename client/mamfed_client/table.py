"""A CSV table as hospitals write them -> records, each with its line number."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import DataError

IGNORED_PREFIX = "x_"
"""Columns of a site's own, as ``x_comment``, are skipped; every other unknown one is an error."""


class Record(NamedTuple):
    """One row of a table.

    Attributes:
        row_number: The line it starts on as a text editor counts; the header is line 1.
        cells: Name of each of the table's columns -> text without blanks around it.
        complete: Whether it has as many cells as the header.
    """

    row_number: int
    cells: dict[str, str]
    complete: bool


def read_table(
    path: Path, known: Collection[str] | None = None, needed: Collection[str] = ()
) -> list[Record]:
    """Read a table of UTF-8 text, cells separated by ``,`` or ``;``; empty lines are skipped.

    Args:
        path: The CSV file.
        known: The column names that have a meaning, in small letters; None lets any stand.
        needed: Those that must be there.

    Raises:
        DataError: The file cannot be read, is empty, or its header lacks a column or has an
            unknown or repeated one.
    """
    text = _text(path)
    first_line = text.lstrip().partition("\n")[0]
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    try:
        lines = list(_numbered(text, delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table: {error}") from None
    if not lines:
        raise DataError(f"{path}: the table is empty")
    header = [name.strip().lower() for name in lines[0][1]]
    _check_header(path, header, known, needed)
    records = [_record(number, cells, header) for number, cells in lines[1:]]
    if not records:
        raise DataError(f"{path}: the table has a header but no rows")
    return records


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the table as 'CSV UTF-8'") from None


def _numbered(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield non-empty rows with the line that they start on: quoted cells may hold newlines."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield start, cells
        start = reader.line_num + 1


def stacked(tables: Iterable[list[Record]]) -> list[Record]:
    """Put tables one below the other: row numbers go on where the table before ended."""
    stack: list[Record] = []
    for table in tables:
        above = stack[-1].row_number if stack else 0
        stack += [record._replace(row_number=above + record.row_number) for record in table]
    return stack


def _check_header(
    path: Path, header: list[str], known: Collection[str] | None, needed: Collection[str]
) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} appears twice")
    if known is not None:
        _check_known(path, header, known)
    for name in needed:
        if name not in header:
            raise DataError(f"{path}: column {name!r} is missing")


def _check_known(path: Path, header: list[str], known: Collection[str]) -> None:
    unknown = [c for c in header if c not in known and not c.startswith(IGNORED_PREFIX)]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ";"
        # Without a header the first row is a patient's: what resembles no column is not quoted.
        found = repr(unknown[0]) if close else f"in place {header.index(unknown[0]) + 1}"
        own = f"name a column of your own {IGNORED_PREFIX}..."
        names = ", ".join(known)
        raise DataError(f"{path}: unknown column {found}{hint} known are {names}; {own}")


def _record(row_number: int, cells: list[str], header: list[str]) -> Record:
    padded = cells + [""] * len(header)
    named = {name: cell.strip() for name, cell in zip(header, padded, strict=False)}
    return Record(row_number, named, complete=len(cells) == len(header))
