"""The studies in folders of ``mamfed-client predict`` that a person named, and their pages.

Only pages that ``predict`` wrote are served, read-only. No part of a request becomes a path: a
folder is named by its place on the command line, a page by a study that the folder's own summary
lists.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.prediction.folder import STUDIES, SUMMARY, is_predictions
from mamfed_client.prediction.study_page import INDEX, FindingStrength, strength_of
from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import STATE_BYTES, read_bytes, read_values
from mamfed_common.runtime.output_checks import is_page

HEAD = 4096
"""Bytes at the start of a page that hold the mark of mamfed."""
PAGE_BYTES = 64 << 20
"""Maximum size of a page: its pictures are in it."""
NAME = re.compile(r"[0-9a-f]{8,64}")
"""A study's pseudonym."""
LATEST = 500
"""Most studies of a folder on the page, the strongest first."""


class StudyRow(NamedTuple):
    """One study: its pseudonym, its images, how many are marked, and its strongest region."""

    name: str
    images: int
    marked: int
    strength: FindingStrength
    views: str


class StudiesView(NamedTuple):
    """One folder of predictions.

    Attributes:
        number: Its place on the command line, from 0.
        folder: Its last two parts.
        error: Why it cannot be shown; empty if it can.
        weights: First digits of the SHA-256 of the model's weights.
        images: Images in it.
        rejected: Images of the last call that cannot be used.
        studies: Its studies, the strongest first.
        more: Studies that are not listed.
    """

    number: int
    folder: str
    error: str = ""
    weights: str = ""
    images: int = 0
    rejected: int = 0
    studies: tuple[StudyRow, ...] = ()
    more: int = 0


def check_predictions(folders: Iterable[Path]) -> None:
    """Refuse a folder that ``mamfed-client predict`` did not write.

    Raises:
        SetupError: It is named.
    """
    for folder in folders:
        if not is_predictions(folder):
            raise SetupError(
                f"{folder}: found no predictions, expected a folder that mamfed-client predict "
                "--out wrote"
            )


def check_checks(pages: Iterable[Path]) -> None:
    """Refuse a page that ``mamfed-client data check --html`` did not write.

    Raises:
        SetupError: It is named.
    """
    for path in pages:
        if _content(path) is None:
            raise SetupError(f"{path}: expected a page that mamfed-client data check --html wrote")


def studies_view(folders: Sequence[Path]) -> tuple[StudiesView, ...]:
    """Read the summaries of some folders."""
    return tuple(_folder_view(number, folder) for number, folder in enumerate(folders))


def _folder_view(number: int, folder: Path) -> StudiesView:
    name = "/".join(folder.resolve().parts[-2:])
    try:
        document = read_values(folder / SUMMARY, STATE_BYTES)
        rows = [_row(name, records) for name, records in _by_study(document).items()]
        rejected = sum(document.get("rejected", {}).values())
        weights = str(document["model"].get("weights_sha256", ""))[:12]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return StudiesView(number, name, error=f"{SUMMARY} cannot be read; run predict again")
    rows.sort(key=lambda row: (*(-part for part in row.strength), row.name))
    images = sum(row.images for row in rows)
    more = max(0, len(rows) - LATEST)
    return StudiesView(number, name, "", weights, images, rejected, tuple(rows[:LATEST]), more)


def _by_study(document: Any) -> dict[str, list[dict[str, Any]]]:
    studies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in document["per_image"]:
        if NAME.fullmatch(record["study"]):
            studies[record["study"]].append(record)
    return studies


def _row(name: str, records: list[dict[str, Any]]) -> StudyRow:
    views = sorted({f"{r['laterality'] or '?'} {r['view'] or '?'}" for r in records})
    marked = sum(bool(record["lesions"]) for record in records)
    return StudyRow(name, len(records), marked, strength_of(records), ", ".join(views))


def page(folders: Sequence[Path], number: int, study: str) -> bytes | None:
    """Return a page that ``predict`` wrote; None if there is no such page.

    Args:
        folders: The folders that the person named.
        number: The folder's place among them.
        study: The study's pseudonym; empty for the folder's list of studies.
    """
    if not 0 <= number < len(folders) or (study and not NAME.fullmatch(study)):
        return None
    folder = folders[number]
    path = folder / STUDIES / f"{study}.html" if study else folder / INDEX
    if not is_predictions(folder) or not _lies_in(path, folder):
        return None
    return _content(path)


def check_page(pages: Sequence[Path], number: int) -> bytes | None:
    """Return a page that ``data check --html`` wrote and a person named; None if it is none."""
    return _content(pages[number]) if 0 <= number < len(pages) else None


def _content(path: Path) -> bytes | None:
    try:
        content = read_bytes(path, PAGE_BYTES)
    except OSError:
        return None
    return content if is_page(content[:HEAD]) else None


def _lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file lies where it seems to, with no link on the way out of its folder."""
    return os.path.realpath(path) == os.path.join(
        os.path.realpath(folder), path.relative_to(folder)
    )
