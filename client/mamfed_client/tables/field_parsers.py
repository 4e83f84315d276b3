"""One cell of the table -> its meaning. What is not understood is refused, never guessed."""

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
    """What the tissue was found to be."""

    NORMAL = "normal"
    BENIGN = "benign"
    MALIGNANT = "malignant"


class Label(NamedTuple):
    """What a row says of its image.

    Attributes:
        pathology: None where the cell is empty.
        birads: BI-RADS assessments, 0..6; several findings may have one each.
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
    """Read a pathology cell and a birads cell; both may be empty.

    Args:
        pathology: ``normal``, ``benign``, ``malignant`` or ``BENIGN_WITHOUT_CALLBACK`` in any case.
        birads: Categories 0..6, 4 also as 4a, 4b, 4c, each perhaps after ``BI-RADS``, ``ACR`` or
            ``BI-RADS Category``; several joined by ``|`` or ``$``.

    Raises:
        FileRejected: Either holds something else.
    """
    pathology, birads = plain(pathology), plain(birads)
    if pathology and pathology.lower() not in _PATHOLOGIES:
        raise FileRejected(
            Reason.BAD_LABEL, f"pathology {pathology!r}; normal, benign or malignant"
        )
    matches = [_BIRADS.fullmatch(part.strip()) for part in re.split(r"[|$]", birads) if birads]
    categories = [int(match[1] or match[2]) for match in matches if match]
    if len(categories) < len(matches):
        raise FileRejected(Reason.BAD_LABEL, f"birads {birads!r}; 0 to 6, several joined by |")
    return Label(_PATHOLOGIES.get(pathology.lower()), tuple(categories))


def unite(labels: Iterable[Label]) -> Label:
    """Join what is said of an image's findings: the worst pathology, each category once."""
    labels = list(labels)
    said = {label.pathology for label in labels}
    worst = next((p for p in reversed(Pathology) if p in said), None)
    return Label(worst, tuple(dict.fromkeys(c for label in labels for c in label.birads)))


def parse_kind(finding: str) -> str | None:
    """Read what a table calls an image's findings, of which only the kind is kept.

    Returns:
        ``mass``, ``calcification``, ``both`` or ``other``; None where nothing is said. MIAS calls
        circumscribed, spiculated and ill-defined masses ``CIRC``, ``SPIC`` and ``MISC``.
    """
    mass, calcification = _MASS.search(finding), _CALCIFICATION.search(finding)
    if mass and calcification:
        return "both"
    if mass or calcification:
        return "mass" if mass else "calcification"
    return "other" if finding.strip() else None


def parse_density(cell: str) -> str | None:
    """Read a breast's density: ``A`` to ``D``, also from 1..4 or after ``DENSITY`` or ``ACR``.

    Another scale is kept as it is written; empty is unknown.
    """
    cell = plain(cell)
    match = _DENSITY.fullmatch(cell)
    if match is None:
        return cell or None
    return "ABCD"[int(match[1]) - 1] if match[1] else match[2].upper()


def parse_laterality(cell: str) -> Laterality | None:
    """Read L, R, LEFT or RIGHT in any case; empty is unknown.

    Raises:
        FileRejected: Anything else.
    """
    cell = plain(cell)
    if cell and cell.upper() not in _SIDES:
        raise FileRejected(Reason.BAD_LATERALITY, f"laterality {cell!r}; L or R")
    return _SIDES.get(cell.upper())


def parse_yes(cell: str, column: str) -> bool:
    """Read whether somebody has looked and found it right; empty is no.

    Raises:
        FileRejected: Neither yes nor no.
    """
    word = plain(cell).lower()
    if word not in ("", "yes", "no"):
        raise FileRejected(Reason.BAD_REVIEWED, f"{column} {cell!r}; yes or no")
    return word == "yes"


def parse_view(cell: str) -> str | None:
    """Read a view, in capitals; empty is unknown."""
    return plain(cell).upper() or None


def parse_number(cell: str) -> float:
    """Read a number with a decimal point or, as spreadsheets of most of Europe write it, a comma.

    Returns:
        NaN where it is no number.
    """
    text = plain(cell)
    if "." not in text:
        text = text.replace(",", ".", 1)
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan


def parse_spacing(cell: str) -> float | None:
    """Read a pixel spacing in millimetres; empty is unknown.

    Raises:
        FileRejected: Not a number from 0.001 to 10.
    """
    if not plain(cell):
        return None
    spacing_mm = parse_number(cell)
    if not 0.001 <= spacing_mm <= 10:
        raise FileRejected(Reason.BAD_SPACING, f"spacing_mm {cell!r}; millimetres, like 0.07")
    return spacing_mm


def parse_path(folder: Path, cell: str, missing: Reason) -> Path:
    """Find the file that a cell names, with slashes of either kind, inside the table's folder.

    Where no name is spelled exactly so, one is taken that looks the same: an accented letter in
    one code point or two (macOS writes two), full-width letters, odd blanks, capitals.

    Args:
        folder: Where the table lies.
        cell: The path as written, not empty.
        missing: The reason to give where no such file is.

    Raises:
        FileRejected: The path is absolute, has a ``..``, or no file is there, or several look so.
    """
    relative = PureWindowsPath(cell)  # its parser knows both separators and drive letters
    if relative.drive or relative.root or ".." in relative.parts:
        raise FileRejected(Reason.PATH_LEAVES_FOLDER, "paths are relative to the table, without ..")
    try:
        path = _found(folder, relative.parts, missing)
        found = path if path is not None and path.is_file() else None
    except (OSError, ValueError):  # too long, not to be listed, or a zero byte
        found = None
    if found is None:
        raise FileRejected(missing, f"no file {cell!r} in the folder")
    return found


def _found(folder: Path, names: tuple[str, ...], missing: Reason) -> Path | None:
    """Follow names below a folder; one that is not there gives way to the one that looks so.

    Raises:
        FileRejected: Several look so.
    """
    path = folder
    for name in names:
        if os.path.lexists(path / name):
            path /= name
            continue
        alike = _alike(path, path.stat().st_mtime_ns).get(plain(name).casefold(), ())
        if len(alike) > 1:
            raise FileRejected(missing, f"{len(alike)} names differ only in capitals or accents")
        if not alike:
            return None
        path /= alike[0]
    return path


@lru_cache(maxsize=16)
def _alike(folder: Path, _: int) -> dict[str, tuple[str, ...]]:
    """List a folder's names by what they look like; the number changes when they do."""
    alike: dict[str, tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        key = plain(name).casefold()
        alike[key] = (*alike.get(key, ()), name)
    return alike
