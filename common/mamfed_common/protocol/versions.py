"""The versions that a federation must share, and their checks. Imports neither Flower nor torch."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mamfed_common import __version__
from mamfed_common.errors import SetupError

FLOWER = SpecifierSet(">=1.41,<1.43")
"""Flower versions with which mamfed's calls to Flower's private functions were tested."""

MAMFED_HEADER = "x-mamfed-version"
"""HTTP header with a site's mamfed version; Flower's own header has its Flower version."""

RUN_HEADER = "x-mamfed-run"
"""HTTP header of every server answer: ``STATUS NAME``, with the status ``running``, ``finished``,
``failed`` or ``stopped``."""

WAIT_HEADER = "prefer"
"""HTTP header of a site's poll: ``wait=SECONDS``, how long its answer may take (RFC 7240). A
coordinator of an older version answers at once."""

LEASE_HEADER = "x-mamfed-lease"
"""HTTP header of the answer to a poll: the seconds for which the poll has renewed the node's lease.
Meanwhile the node needs no heartbeat. A coordinator that sends it offers a message again until the
node has confirmed it; one of an older version does neither."""
LEASE_SECONDS = 60.0

INSTANCE_HEADER = "x-mamfed-instance"
"""HTTP header with a random number that a site's node draws at each start, 16 hex digits. It
distinguishes two processes with the same identity, from a home that was copied."""

AUDIT_HEAD_HEADER = "x-mamfed-audit-head"
"""HTTP header of a site's request: ``COUNT SHA256`` of its audit log's last line, while the
coordinator has not countersigned it yet. A coordinator of an older version ignores it."""

AUDIT_SEAL_HEADER = "x-mamfed-audit-seal"
"""HTTP header of the answer: ``COUNT SHA256 TIME SIGNATURE`` (``security/audit_seal.py``)."""


@cache
def flower_version() -> str:
    """Return the version of the installed Flower, cached for the life of the process."""
    return version("flwr")


def check_flower() -> None:
    """Refuse a Flower version outside the tested range.

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
    """Return the major and minor number of a version; None if the text is not a version."""
    try:
        found = Version(text)
    except ValueError:
        return None
    return found.major, found.minor


def same_minor(theirs: str, ours: str = __version__) -> bool:
    """Return whether two versions are compatible: equal major and minor numbers."""
    return minor(theirs) is not None and minor(theirs) == minor(ours)
