"""A CSV table as hospitals write them -> records, each with its line number."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from mamfed_common.errors import DataError
from mamfed_common.runtime.files import reason
from mamfed_common.runtime.text import NotTextError, plain, read_text

IGNORED_PREFIX = "x_"
"""Columns of a site's own, as ``x_comment``, are skipped; every other unknown one is an error."""

DELIMITERS = ",;\t"
"""Of two that a header holds equally often the first is taken."""

_DECLARED = re.compile(r'"?sep=([,;|:\t])"?[,;\t]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""The line by which Excel and PowerShell say what separates cells; Excel itself hides it."""


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        row_number: The line it starts on as a text editor counts; the header is line 1.
        cells: Name of each of the table's columns -> text without blanks around it.
        complete: Whether it has as many cells as the header, those without a column being empty.
    """

    row_number: int
    cells: dict[str, str]
    complete: bool


def read_table(
    path: Path, known: Collection[str] | None = None, needed: Collection[str] = ()
) -> list[TableRow]:
    """Read a table of text, cells separated by ``,``, ``;`` or tabs; empty lines are skipped.

    A first line ``sep=;`` is obeyed. Columns without a name at the right, as spreadsheets leave
    them, are no columns.

    Args:
        path: The CSV file.
        known: The column names that have a meaning, in small letters; None lets any stand.
        needed: Those that must be there.

    Raises:
        DataError: The file cannot be read, is empty, or its header lacks a column or has an
            unknown or repeated one.
    """
    delimiter, start, text = dialect(_text(path))
    try:
        lines = list(_numbered(text, delimiter, start))
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table: {error}") from None
    if not lines:
        raise DataError(f"{path}: the table is empty")
    width = len(lines[0][1])
    if width == 1 and any(mark in lines[0][1][0] for mark in DELIMITERS):
        raise DataError(f"{path}: each line is one quoted cell; save the table as CSV once more")
    header = [plain(name).lower() for name in lines[0][1]]
    while header and not header[-1]:
        header.pop()
    _check_header(path, header, known, needed)
    records = [_record(number, cells, header, width) for number, cells in lines[1:]]
    if not records:
        raise DataError(f"{path}: the table has a header but no rows")
    return records


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(path, error)}") from None
    except NotTextError as error:
        raise DataError(f"{path}: {error}, in a spreadsheet as 'CSV UTF-8'") from None


def dialect(text: str) -> tuple[str, int, str]:
    """Return what separates cells of a CSV, the line that the table starts on, and the table.

    Where no ``sep=`` says it, it is what the header holds most of, outside of quotes.
    """
    if declared := _DECLARED.match(text):
        return declared[1], 2, text[declared.end() :]
    header = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0])
    return max(DELIMITERS, key=header.count), 1, text


def _numbered(text: str, delimiter: str, start: int) -> Iterator[tuple[int, list[str]]]:
    """Yield non-empty rows with the line that they start on: quoted cells may hold newlines."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = start
    for cells in reader:
        if any(plain(cell) for cell in cells):
            yield start, cells
        start = first + reader.line_num


def concatenated(tables: Iterable[list[TableRow]]) -> list[TableRow]:
    """Put tables one below the other: row numbers go on where the table before ended."""
    stack: list[TableRow] = []
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


def _record(row_number: int, cells: list[str], header: list[str], width: int) -> TableRow:
    """Name a row's cells; ``width`` is that of the header with its columns without a name."""
    padded = cells + [""] * len(header)
    named = {name: cell.strip() for name, cell in zip(header, padded, strict=False)}
    unnamed = any(plain(cell) for cell in cells[len(header) :])
    complete = len(cells) in (len(header), width) and not unnamed
    return TableRow(row_number, named, complete)
