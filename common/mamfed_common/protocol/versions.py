"""The versions that a federation must share, and the check that they are there.

Nothing here imports Flower or torch.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mamfed_common import __version__
from mamfed_common.errors import SetupError

FLOWER = SpecifierSet(">=1.41,<1.43")
"""The Flower that mamfed's calls into its private parts were tested with."""

MAMFED_HEADER = "x-mamfed-version"
"""HTTP header in which a site names its mamfed; Flower's own header names its Flower."""

RUN_HEADER = "x-mamfed-run"
"""HTTP header of each of the server's answers: ``HOW NAME``, where HOW is ``running`` or how the
run has ended, ``finished``, ``failed`` or ``stopped``."""

INSTANCE_HEADER = "x-mamfed-instance"
"""HTTP header with a number that a site's node draws at each start, 16 hex digits: two processes
of one identity, from a home that was copied, are told apart by it."""


@cache
def flower_version() -> str:
    """Return the installed Flower's version, as this process first found it."""
    return version("flwr")


def check_flower() -> None:
    """Refuse a Flower outside the tested range.

    Raises:
        SetupError: It is older or newer.
    """
    found = flower_version()
    if found not in FLOWER:
        raise SetupError(
            f"found Flower {found}, expected {FLOWER}; pip install 'flwr{FLOWER}' in mamfed's "
            "environment"
        )


def minor(text: str) -> tuple[int, int] | None:
    """Return major and minor of a version, None where the text is none."""
    try:
        found = Version(text)
    except ValueError:
        return None
    return found.major, found.minor


def same_minor(theirs: str, ours: str = __version__) -> bool:
    """Tell whether two versions may work together: the same major and minor."""
    return minor(theirs) is not None and minor(theirs) == minor(ours)
