"""A folder -> the files below it."""

from __future__ import annotations

import os
from pathlib import Path

from mamfed_common.errors import DataError


def files_below(folder: Path) -> list[Path]:
    """List files and symbolic links below a folder, sorted; links to folders are not entered.

    Hidden files and what macOS adds to archives, ``__MACOSX`` and ``._*``, are left out.

    Raises:
        DataError: A folder cannot be listed, so files would be missed.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if _is_shown(name)]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [Path(parent, name) for name in [*files, *links] if _is_shown(name)]
    return sorted(found)


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _stop(error: OSError) -> None:
    # The folder's name may be a patient's, so only the system's words are repeated.
    raise DataError(f"a folder below the data set cannot be listed: {error.strerror}") from None
