"""List the images of public data sets and plain folders; each layout has its own small reader."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mamfed_client.datasets import bare, cbis, cesm, inbreast, mias, plain, vindr
from mamfed_client.datasets.manifest import Manifest
from mamfed_client.datasets.other_files import count_other_files, describe
from mamfed_common.errors import DataError


class Layout(Protocol):
    """The interface of a layout module.

    Attributes:
        LAYOUT: The layout's name.
        HOLDS: The files by which it is recognised, for messages.
    """

    LAYOUT: str
    HOLDS: str

    def is_here(self, folder: Path) -> bool:
        """Tell whether a folder has this layout."""

    def read(self, folder: Path) -> Manifest:
        """List a folder with this layout, without opening an image."""


_TABLED: tuple[Layout, ...] = (plain, inbreast, cbis, vindr, cesm, mias)
_BARE: Layout = bare

LAYOUTS: dict[str, Layout] = {layout.LAYOUT: layout for layout in (*_TABLED, _BARE)}


def read_folder(folder: Path, layout: str | None = None) -> Manifest:
    """List a folder's images with what its tables say about them.

    Args:
        folder: A data set as downloaded, a folder with ``labels.csv``, or a folder of image files.
        layout: A name in ``LAYOUTS``; None detects it.

    Raises:
        DataError: The folder or layout does not exist, no layout or several layouts match, or a
            table as a whole is not valid.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is unknown; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[layout or _detected(folder)].read(folder)


def _detected(folder: Path) -> str:
    """Return the one layout that matches; a layout without a table counts only if no other does."""
    matching = [layout for layout in _TABLED if layout.is_here(folder)]
    if len(matching) > 1:
        holds = " and ".join(layout.HOLDS for layout in matching)
        names = " or ".join(layout.LAYOUT for layout in matching)
        raise DataError(f"{folder}: holds {holds}; choose one with --layout, {names}")
    if matching:
        return matching[0].LAYOUT
    if _BARE.is_here(folder):
        return _BARE.LAYOUT
    holds = "; ".join(f"{layout.HOLDS} ({layout.LAYOUT})" for layout in LAYOUTS.values())
    notes = "".join(f"; {note}" for note in describe(count_other_files(folder, (), ())))
    raise DataError(f"{folder}: no data set in this folder{notes}; looked for {holds}")
