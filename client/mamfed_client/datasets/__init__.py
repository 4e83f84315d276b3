"""List the images of public data sets and plain folders; each layout has its own small reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mamfed_client.datasets import bare, cbis, cesm, inbreast, mias, plain, vindr
from mamfed_client.datasets.installed_layout import InstalledLayout
from mamfed_client.datasets.manifest import Manifest
from mamfed_client.datasets.other_files import count_other_files, describe
from mamfed_common.errors import DataError
from mamfed_common.runtime.plugins import Group, find_entry, installed, load_plugin


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
"""The built-in layouts; :func:`all_layouts` adds the installed ones."""


def all_layouts() -> dict[str, Layout]:
    """Return the built-in and the installed layouts (entry point group ``mamfed.layouts``).

    Raises:
        DataError: An installed one cannot be imported or is incomplete. ``read_folder`` with the
            name of another layout does not import it.
    """
    return {name: _layout(name) for name in _names()}


def _names() -> list[str]:
    return list(dict.fromkeys([*LAYOUTS, *installed(Group.LAYOUTS)]))


def _layout(name: str) -> Layout:
    entry = find_entry(Group.LAYOUTS, name, LAYOUTS, DataError)
    if entry is None:
        return LAYOUTS[name]
    return InstalledLayout(name, load_plugin(Group.LAYOUTS, entry, DataError))


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
    if layout is None:
        layouts = all_layouts()
        return layouts[_detected(folder, layouts)].read(folder)
    if layout not in (names := _names()):
        raise DataError(f"layout {layout!r} is unknown; expected one of {', '.join(names)}")
    return _layout(layout).read(folder)


def _detected(folder: Path, layouts: Mapping[str, Layout]) -> str:
    """Return the one layout that matches; a layout without a table counts only if no other does."""
    tabled = (layout for layout in layouts.values() if layout is not _BARE)
    matching = [layout for layout in tabled if layout.is_here(folder)]
    if len(matching) > 1:
        holds = " and ".join(layout.HOLDS for layout in matching)
        names = " or ".join(layout.LAYOUT for layout in matching)
        raise DataError(f"{folder}: holds {holds}; choose one with --layout, {names}")
    if matching:
        return matching[0].LAYOUT
    if _BARE.is_here(folder):
        return _BARE.LAYOUT
    holds = "; ".join(f"{layout.HOLDS} ({layout.LAYOUT})" for layout in layouts.values())
    notes = "".join(f"; {note}" for note in describe(count_other_files(folder, (), ())))
    raise DataError(f"{folder}: no data set in this folder{notes}; looked for {holds}")
