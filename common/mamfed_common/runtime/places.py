"""The user's folders, also for users of containers and schedulers without a home."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from mamfed_common.errors import SetupError


def cache_folder() -> Path:
    """Return the user's cache folder: ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        SetupError: The user has no home.
    """
    return _user_folder("XDG_CACHE_HOME", ".cache", "MAMFED_CACHE (samples)")


def config_folder() -> Path:
    """Return the user's settings folder: ``$XDG_CONFIG_HOME`` or ``~/.config``.

    Raises:
        SetupError: The user has no home.
    """
    return _user_folder("XDG_CONFIG_HOME", ".config", "MAMFED_SECRET (the site's secret)")


def temporary_folder() -> Path:
    """Return the folder for temporary files: ``$TMPDIR``, the system's, or the current folder.

    Raises:
        SetupError: None of them can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise SetupError(
            "no writable folder for temporary files: tried TMPDIR, /tmp, /var/tmp and the current "
            "folder; set TMPDIR to a writable one"
        ) from None


def expanded(path: Path) -> Path:
    """Expand a leading ``~`` to a home folder.

    Raises:
        SetupError: There is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise SetupError(f"{path}: no such home; give the full path, or set HOME") from None


def user_name() -> str:
    """Return the name of the current user, or the user id if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises the second
        return str(os.getuid())


def _user_folder(variable: str, name: str, instead: str) -> Path:
    if value := os.environ.get(variable):
        return Path(value)
    try:
        return Path.home() / name
    except RuntimeError:
        raise SetupError(
            f"user {os.getuid()} has no home folder: set HOME, or set {instead} to your own file "
            "or folder"
        ) from None
