"""Parse the cells of a table. A cell that cannot be understood is rejected, never guessed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from mamfed_client.imaging.mammogram import Laterality
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_common.runtime.text import plain


class Pathology(StrEnum):
    """The pathology result."""

    NORMAL = "normal"
    BENIGN = "benign"
    MALIGNANT = "malignant"


class Label(NamedTuple):
    """The label of an image.

    Attributes:
        pathology: The pathology; None if the cell is empty.
        birads: BI-RADS assessments, 0..6; one for each finding.
    """

    pathology: Pathology | None
    birads: tuple[int, ...]


_SIDES: dict[str, Laterality] = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_PATHOLOGIES = {
    **{pathology.value: pathology for pathology in Pathology},
    "benign_without_callback": Pathology.BENIGN,  # CBIS-DDSM
}
_MASS = re.compile(r"mass|nodule|tumou?r|\b(?:circ|spic|misc)\b", re.IGNORECASE)
_CALCIFICATION = re.compile(r"calc", re.IGNORECASE)
_CATEGORY = r"(?:(?:category|cat\.?)[ :_-]*)?"
_BIRADS = re.compile(  # pandas writes 4 as 4.0, some spreadsheets as 4,0
    rf"(?:(?:bi[ _-]?rads|acr)[ :_-]*)?{_CATEGORY}(?:([0-6])(?:[.,]0)?|(4)[abc])", re.IGNORECASE
)
_DENSITY = re.compile(
    rf"(?:(?:bi[ _-]?rads|acr|density)[ :_-]*)?{_CATEGORY}(?:([1-4])(?:[.,]0)?|([a-d]))",
    re.IGNORECASE,
)


def parse_label(pathology: str, birads: str) -> Label:
    """Parse a pathology cell and a birads cell; both may be empty.

    Args:
        pathology: ``normal``, ``benign``, ``malignant`` or ``BENIGN_WITHOUT_CALLBACK`` in any case.
        birads: Categories 0..6, 4 also as 4a, 4b or 4c, optionally after ``BI-RADS``, ``ACR`` or
            ``BI-RADS Category``; several joined by ``|`` or ``$``.

    Raises:
        FileRejected: Either cell has another value.
    """
    pathology, birads = plain(pathology), plain(birads)
    if pathology and pathology.lower() not in _PATHOLOGIES:
        raise FileRejected(
            Reason.BAD_LABEL, f"pathology {pathology!r}; use normal, benign or malignant"
        )
    matches = [_BIRADS.fullmatch(part.strip()) for part in re.split(r"[|$]", birads) if birads]
    categories = [int(match[1] or match[2]) for match in matches if match]
    if len(categories) < len(matches):
        raise FileRejected(Reason.BAD_LABEL, f"birads {birads!r}; use 0 to 6, joined by |")
    return Label(_PATHOLOGIES.get(pathology.lower()), tuple(categories))


def unite(labels: Iterable[Label]) -> Label:
    """Combine the labels of an image's findings: the worst pathology, each category once."""
    labels = list(labels)
    pathologies = {label.pathology for label in labels}
    worst = next((p for p in reversed(Pathology) if p in pathologies), None)
    return Label(worst, tuple(dict.fromkeys(c for label in labels for c in label.birads)))


def parse_kind(finding: str) -> str | None:
    """Parse the kind of an image's findings from their description.

    Returns:
        ``mass``, ``calcification``, ``both`` or ``other``; None if the cell is empty. MIAS calls
        circumscribed, spiculated and ill-defined masses ``CIRC``, ``SPIC`` and ``MISC``.
    """
    mass, calcification = _MASS.search(finding), _CALCIFICATION.search(finding)
    if mass and calcification:
        return "both"
    if mass or calcification:
        return "mass" if mass else "calcification"
    return "other" if finding.strip() else None


def parse_density(cell: str) -> str | None:
    """Parse a breast density ``A`` to ``D`` or 1..4, optionally after ``DENSITY`` or ``ACR``.

    Values on another scale are kept as written; an empty cell is None.
    """
    cell = plain(cell)
    match = _DENSITY.fullmatch(cell)
    if match is None:
        return cell or None
    return "ABCD"[int(match[1]) - 1] if match[1] else match[2].upper()


def parse_laterality(cell: str) -> Laterality | None:
    """Parse L, R, LEFT or RIGHT in any case; an empty cell is None.

    Raises:
        FileRejected: The cell has another value.
    """
    cell = plain(cell)
    if cell and cell.upper() not in _SIDES:
        raise FileRejected(Reason.BAD_LATERALITY, f"laterality {cell!r}; use L or R")
    return _SIDES.get(cell.upper())


def parse_yes(cell: str, column: str) -> bool:
    """Parse yes or no, as in the ``reviewed`` column; an empty cell is no.

    Raises:
        FileRejected: The cell is neither yes nor no.
    """
    word = plain(cell).lower()
    if word not in ("", "yes", "no"):
        raise FileRejected(Reason.BAD_REVIEWED, f"{column} {cell!r}; use yes or no")
    return word == "yes"


def parse_view(cell: str) -> str | None:
    """Parse a view into upper case; an empty cell is None."""
    return plain(cell).upper() or None


def parse_number(cell: str) -> float:
    """Parse a number with a decimal point or, as in most European spreadsheets, a decimal comma.

    Returns:
        The number, or NaN if the cell is not a number.
    """
    text = plain(cell)
    if "." not in text:
        text = text.replace(",", ".", 1)
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan


def parse_spacing(cell: str) -> float | None:
    """Parse a pixel spacing in millimetres; an empty cell is None.

    Raises:
        FileRejected: The cell is not a number from 0.001 to 10.
    """
    if not plain(cell):
        return None
    spacing_mm = parse_number(cell)
    if not 0.001 <= spacing_mm <= 10:
        raise FileRejected(
            Reason.BAD_SPACING, f"spacing_mm {cell!r}; use millimetres, such as 0.07"
        )
    return spacing_mm


def parse_path(folder: Path, cell: str, missing: Reason) -> Path:
    """Find the file that a cell names, with either kind of slash, inside the table's folder.

    If no name matches exactly, a name that looks the same is accepted: an accented letter as one
    code point or two (macOS writes two), full-width letters, unusual blanks, or different case.

    Args:
        folder: The table's folder.
        cell: The path as written, not empty.
        missing: The reason to report if there is no such file.

    Raises:
        FileRejected: The path is absolute or contains ``..``, or the file does not exist, or
            several files look the same.
    """
    relative = PureWindowsPath(cell)  # handles both separators and drive letters
    if relative.drive or relative.root or ".." in relative.parts:
        raise FileRejected(Reason.PATH_LEAVES_FOLDER, "paths are relative to the table, without ..")
    try:
        path = _resolve(folder, relative.parts, missing)
        file = path if path is not None and path.is_file() else None
    except (OSError, ValueError):  # too long, an unreadable folder, or a zero byte
        file = None
    if file is None:
        raise FileRejected(missing, f"no file {cell!r} in the folder")
    return file


def _resolve(folder: Path, names: tuple[str, ...], missing: Reason) -> Path | None:
    """Follow names below a folder, accepting a name that looks the same if one does not exist.

    Raises:
        FileRejected: Several names look the same.
    """
    path = folder
    for name in names:
        if os.path.lexists(path / name):
            path /= name
            continue
        alike = _names_by_look(path, path.stat().st_mtime_ns).get(plain(name).casefold(), ())
        if len(alike) > 1:
            raise FileRejected(missing, f"{len(alike)} names differ only in case or accents")
        if not alike:
            return None
        path /= alike[0]
    return path


@lru_cache(maxsize=16)
def _names_by_look(folder: Path, _mtime_ns: int) -> dict[str, tuple[str, ...]]:
    """Group a folder's names by what they look like; the time invalidates the cache."""
    names: dict[str, tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        key = plain(name).casefold()
        names[key] = (*names.get(key, ()), name)
    return names
