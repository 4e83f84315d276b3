"""Hold the layout of an installed package to the rules that the built-in layouts keep.

A package's code may raise anything and return anything. Here its failures become one line, and its
rows are checked: a row that breaks a rule is rejected like any other row, and costs no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mamfed_client.datasets.manifest import Manifest, PatientStatement, Row, repeated_rows
from mamfed_client.imaging.rejections import FileRejected, Reason, Rejection, rejection
from mamfed_client.tables.field_parsers import Label, parse_laterality
from mamfed_common.errors import DataError, MamfedError

T = TypeVar("T")

ATTRIBUTES = ("LAYOUT", "HOLDS", "is_here", "read")


class InstalledLayout:
    """A layout module of an installed package, checked."""

    def __init__(self, name: str, module: Any) -> None:
        """Wrap a module.

        Args:
            name: The entry point's name.
            module: What the entry point names.

        Raises:
            DataError: The module lacks an attribute, or calls itself something else.
        """
        missing = [attribute for attribute in ATTRIBUTES if not hasattr(module, attribute)]
        if missing:
            raise DataError(f"layout {name!r}: the package's module lacks {', '.join(missing)}")
        if name != module.LAYOUT:
            raise DataError(
                f"layout {name!r}: its module has LAYOUT = {str(module.LAYOUT)[:40]!r}; expected "
                "the name of its entry point"
            )
        self.LAYOUT = name
        self.HOLDS = str(module.HOLDS)
        self._module = module

    def is_here(self, folder: Path) -> bool:
        """Tell whether a folder has this layout.

        Raises:
            DataError: The package's code failed.
        """
        return bool(self._ask(self._module.is_here, folder))

    def read(self, folder: Path) -> Manifest:
        """List a folder with this layout, without opening an image.

        Raises:
            DataError: The package's code failed, or returned something that is not a manifest.
        """
        manifest = self._ask(self._module.read, folder)
        if not isinstance(manifest, Manifest):
            raise DataError(f"layout {self.LAYOUT!r}: read returned a {type(manifest).__name__}")
        statements = manifest.statements
        if not all(isinstance(statement, PatientStatement) for statement in statements):
            raise DataError(f"layout {self.LAYOUT!r}: a statement is not a PatientStatement")
        return _checked(replace(manifest, folder=folder, layout=self.LAYOUT))

    def _ask(self, function: Callable[[Path], T], folder: Path) -> T:
        """Call the package's code.

        Raises:
            DataError: It failed. The message names the error's type and place but never its text,
                which may quote a patient's identifier.
        """
        try:
            return function(folder)
        except MamfedError as error:
            raise DataError(f"layout {self.LAYOUT!r}: {error}") from None
        except Exception as error:  # a package's code may raise anything
            raise DataError(
                f"layout {self.LAYOUT!r} failed with {type(error).__name__} in {_place(error)}; "
                "repair the package, or choose another with --layout"
            ) from None


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"


def _checked(manifest: Manifest) -> Manifest:
    """Reject the rows that break a rule, and count every file that a row names."""
    rows: list[Row] = []
    rejected: list[Rejection] = list(manifest.rejected)
    images, outlines = set(manifest.images), set(manifest.outlines)
    for row in manifest.rows:
        if not isinstance(row, Row):
            raise DataError(f"layout {manifest.layout!r}: a row is a {type(row).__name__}")
        images.add(row.image_path)
        outlines.update(mark.path for mark in row.annotations if mark.path is not None)
        try:
            _check_row(manifest.folder, row)
            rows.append(row)
        except FileRejected as error:
            rejected.append(rejection(row.row_number, row.image, error))
    repeated = repeated_rows(rows)
    return replace(
        manifest,
        rows=[row for row in rows if row.row_number not in repeated],
        rejected=sorted([*rejected, *repeated.values()], key=lambda r: r.row_number),
        images=images,
        outlines=outlines,
    )


def _check_row(folder: Path, row: Row) -> None:
    """Check a row as ``parse_path`` and ``parse_laterality`` check a table's cells.

    Raises:
        FileRejected: It breaks a rule.
    """
    if not isinstance(row.label, Label):
        raise FileRejected(Reason.BAD_LABEL, "the layout gives no label")
    if row.laterality is not None and parse_laterality(str(row.laterality)) != row.laterality:
        raise FileRejected(Reason.BAD_LATERALITY, f"laterality {row.laterality!r} is not L or R")
    _check_inside(folder, row.image_path, Reason.MISSING_IMAGE)
    for mark in row.annotations:
        if mark.path is not None:
            _check_inside(folder, mark.path, Reason.MISSING_MASK)
        if mark.path == row.image_path:
            raise FileRejected(Reason.UNREADABLE_MASK, "the outline is the image itself")


def _check_inside(folder: Path, path: Path, missing: Reason) -> None:
    try:
        parts = path.relative_to(folder).parts
    except ValueError:
        parts = ("..",)
    if ".." in parts:
        raise FileRejected(Reason.PATH_LEAVES_FOLDER, "the layout names a file outside the folder")
    if not path.is_file():
        raise FileRejected(missing, "the layout names a file that does not exist")
