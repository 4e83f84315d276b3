"""Where things lie in public data sets and plain folders, one small reader a layout -> manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mamfed_client.datasets import bare, cbis, cesm, inbreast, mias, plain, vindr
from mamfed_client.datasets.manifest import Manifest
from mamfed_client.datasets.other_files import count_other_files, describe
from mamfed_common.errors import DataError


class Layout(Protocol):
    """What a module of a layout offers.

    Attributes:
        LAYOUT: The layout's name.
        HOLDS: What it is recognised by, in words.
    """

    LAYOUT: str
    HOLDS: str

    def is_here(self, folder: Path) -> bool:
        """Tell whether a folder is laid out so."""

    def read(self, folder: Path) -> Manifest:
        """Read a folder that is laid out so, without opening an image."""


_TABLED: tuple[Layout, ...] = (plain, inbreast, cbis, vindr, cesm, mias)
_BARE: Layout = bare

LAYOUTS: dict[str, Layout] = {layout.LAYOUT: layout for layout in (*_TABLED, _BARE)}


def read_folder(folder: Path, layout: str | None = None) -> Manifest:
    """List a folder's images with what is said of them.

    Args:
        folder: A data set as it downloads, a folder with ``labels.csv``, or one of image files.
        layout: A name in ``LAYOUTS``; None recognises it.

    Raises:
        DataError: There is no such folder or layout, none or several layouts fit, or a table as a
            whole makes no sense.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is not known; known are {', '.join(LAYOUTS)}")
    return LAYOUTS[layout or _recognised(folder)].read(folder)


def _recognised(folder: Path) -> str:
    """Find the one layout that fits. Image files alone count only where no table is known."""
    fitting = [layout for layout in _TABLED if layout.is_here(folder)]
    if len(fitting) > 1:
        holds = " and ".join(layout.HOLDS for layout in fitting)
        names = " or ".join(layout.LAYOUT for layout in fitting)
        raise DataError(f"{folder}: holds {holds}; say which layout is meant, {names}")
    if fitting:
        return fitting[0].LAYOUT
    if _BARE.is_here(folder):
        return _BARE.LAYOUT
    holds = "; ".join(f"{layout.HOLDS} ({layout.LAYOUT})" for layout in LAYOUTS.values())
    beside = count_other_files(folder, (), ())
    also = "".join(f"; {note}" for note in describe(beside))
    raise DataError(f"{folder}: no data set in this folder{also}; looked for {holds}")
