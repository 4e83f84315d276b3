"""What the shell completes beyond commands and options: the names of things in a home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

MOST = 200
"""Most names that are offered."""

Complete = Callable[[typer.Context, str], list[str]]


def names_in(pattern: str, name_of: Callable[[Path], str]) -> Complete:
    """Return a completion by the files in a command's home; it never fails and imports nothing.

    Args:
        pattern: Pattern of the files, below the home.
        name_of: The name that a file stands for.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        home = Path(ctx.params.get("home") or ".")
        try:
            names = sorted({name_of(path) for path in home.glob(pattern)})
        except OSError:
            return []
        return [name for name in names if name.startswith(incomplete)][:MOST]

    return complete


def folder_name(path: Path) -> str:
    """Return the name of a file's folder."""
    return path.parent.name


def file_name(path: Path) -> str:
    """Return the name of a file without its ending."""
    return path.stem
