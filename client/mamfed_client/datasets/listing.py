"""List the files below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from mamfed_client.datasets.other_files import is_hidden_name
from mamfed_common.errors import DataError
from mamfed_common.runtime.files import refusal_words


def files_below(folder: Path) -> list[Path]:
    """List files and symbolic links below a folder, sorted; links to folders are not followed.

    Hidden files and those that macOS adds to archives, ``__MACOSX`` and ``._*``, are omitted.

    Raises:
        DataError: A folder cannot be listed, so files would be missed.
    """
    paths: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not is_hidden_name(name)]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        paths += [Path(parent, name) for name in [*files, *links] if not is_hidden_name(name)]
    return sorted(paths)


def table_in(folder: Path, name: str) -> Path | None:
    """Find a folder's table regardless of upper and lower case, such as ``Labels.csv``.

    Raises:
        DataError: Several names differ only in upper and lower case.
    """
    if (folder / name).is_file():
        return folder / name
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return None
    alike = [n for n in names if n.casefold() == name.casefold() and (folder / n).is_file()]
    if len(alike) > 1:
        raise DataError(f"{folder}: holds {' and '.join(alike)}; keep one of them, as {name}")
    return folder / alike[0] if alike else None


def _stop(error: OSError) -> None:
    # The folder may be named after a patient, so only the system's message is shown.
    raise DataError(
        f"a folder below the data set cannot be listed: {refusal_words(error)}"
    ) from None
