"""The user's own folders, also where a container's or scheduler's user has none."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from mamfed_common.errors import SetupError


def cache_folder() -> Path:
    """Return where the user's caches lie: ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        SetupError: This user has no home.
    """
    return _user_folder("XDG_CACHE_HOME", ".cache", "MAMFED_CACHE (samples)")


def config_folder() -> Path:
    """Return where the user's settings lie: ``$XDG_CONFIG_HOME`` or ``~/.config``.

    Raises:
        SetupError: This user has no home.
    """
    return _user_folder("XDG_CONFIG_HOME", ".config", "MAMFED_SECRET (the site's secret)")


def temporary_folder() -> Path:
    """Return where temporary files go: ``$TMPDIR``, else the system's, else the current folder.

    Raises:
        SetupError: None of them may be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise SetupError(
            "no folder for temporary files may be written, neither TMPDIR nor /tmp, /var/tmp or "
            "the current one: set TMPDIR to one that may"
        ) from None


def expanded(path: Path) -> Path:
    """Put a home in place of a leading ``~``.

    Raises:
        SetupError: There is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise SetupError(f"{path}: no such home; write the whole path, or set HOME") from None


def user_name() -> str:
    """Return the name of the operating system's user, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises the second
        return str(os.getuid())


def _user_folder(variable: str, name: str, instead: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given)
    try:
        return Path.home() / name
    except RuntimeError:
        raise SetupError(
            f"user {os.getuid()} has no home folder: set HOME, or {instead} to a file or folder of "
            "your own"
        ) from None
