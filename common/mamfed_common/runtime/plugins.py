"""Extensions by entry point: code that is already installed here, never anything from a message.

A package offers an extension in its ``pyproject.toml``::

    [project.entry-points."mamfed.networks"]
    shallow = "my_package:Shallow"

A plan or an option names it. A name that is offered twice is refused. What is installed while a
process runs is seen once it is started again. See ``docs/extending.md``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Container, Mapping
from enum import StrEnum
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from mamfed_common.errors import MamfedError


class Group(StrEnum):
    """The entry point groups."""

    NETWORKS = "mamfed.networks"
    STRATEGIES = "mamfed.strategies"
    LOSSES = "mamfed.losses"
    LAYOUTS = "mamfed.layouts"
    ANNOTATIONS = "mamfed.annotations"

    @property
    def noun(self) -> str:
        """What one extension of the group is called in messages."""
        return {
            Group.NETWORKS: "network",
            Group.STRATEGIES: "strategy",
            Group.LOSSES: "loss",
            Group.LAYOUTS: "layout",
            Group.ANNOTATIONS: "annotation format",
        }[self]


def offered(group: Group) -> EntryPoints:
    """Return the entry points of a group, without importing any."""
    return _offered_from(group, tuple(sys.path))


@functools.lru_cache(maxsize=len(Group))
def _offered_from(group: Group, path: tuple[str, ...]) -> EntryPoints:
    """Look once for each import path: every package's list is read, some 10 ms for each network."""
    return entry_points(group=group.value)


def find_plugin(
    group: Group, name: str, built_in: Mapping[str, Any], error: type[MamfedError]
) -> Any:
    """Return the extension of a name.

    Args:
        group: The entry point group.
        name: The name that a plan or an option gives.
        built_in: What mamfed itself brings, by name.
        error: Raised where there is none.

    Raises:
        error: It is not installed, its package cannot be imported, or several offer the name.
    """
    entry = find_entry(group, name, built_in, error)
    if entry is None and name in built_in:
        return built_in[name]
    if entry is None:
        known = ", ".join([*built_in, *installed(group)])
        raise error(
            f"{group.noun} {name!r} is not installed here, found {known}; install the package that "
            f"provides it (entry point group {group.value})"
        )
    return load_plugin(group, entry, error)


def find_entry(
    group: Group, name: str, built_in: Container[str], error: type[MamfedError]
) -> EntryPoint | None:
    """Return the entry point of a name without importing it; None if no package offers it.

    Raises:
        error: Several packages offer the name, or it is the name of something built in.
    """
    offers = [entry for entry in offered(group) if entry.name == name]
    packages = [entry.dist.name if entry.dist else entry.value for entry in offers]
    if name in built_in:
        packages.insert(0, "mamfed")
    if offers and len(packages) > 1:
        raise error(
            f"{group.noun} {name!r} is offered by {' and '.join(packages)}; uninstall all but one, "
            "or rename the package's entry point"
        )
    return offers[0] if offers else None


def installed(group: Group) -> list[str]:
    """Return the names of the installed extensions of a group, without importing any."""
    return sorted({entry.name for entry in offered(group)})


def load_plugin(group: Group, entry: EntryPoint, error: type[MamfedError]) -> Any:
    """Import an extension.

    Raises:
        error: Its package cannot be imported.
    """
    try:
        return entry.load()
    except Exception as problem:  # a stranger's module may raise anything
        raise error(
            f"{group.noun} {entry.name!r}: cannot import {entry.value} "
            f"({type(problem).__name__}: {problem}); repair or reinstall the package"
        ) from None
