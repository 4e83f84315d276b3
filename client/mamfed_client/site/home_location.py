"""Where a site's home lives, so that a copy of it knows that it is one.

A home holds the site's identity. Copied to a new machine, or restored beside the old one, there are
two processes of one identity, which the coordinator cannot tell apart: messages reach either.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import write_atomic

FILE = "home.json"


class HomeLocation(Config):
    """Where a home lay when it was made or last started.

    Attributes:
        path: Its absolute path.
        host: The machine or container.
        inode: Number of the folder within its file system; a copy has another one.
    """

    path: str
    host: str
    inode: int


def record_home_location(home: Path) -> None:
    """Write down where a home lies, unless that is written already."""
    if not (home / FILE).exists():
        _write(home, _here(home))


def check_home_location(home: Path) -> str:
    """Say in words that a home is a copy; empty where it is not. It is said once.

    A home that was only renamed, or is mounted under another path or into another container, is the
    same home.
    """
    here = _here(home)
    try:
        known = read_json(HomeLocation, home / FILE)
    except SetupError:  # made by mamfed 0.1.0, or damaged
        known = here
    _write(home, here)
    if known.inode == here.inode:
        return ""
    return (
        f"this home was copied or restored: it was {known.path} on {known.host}. Should that one "
        "still run, stop one of the two: with the same identity the coordinator cannot tell them "
        "apart"
    )


def _here(home: Path) -> HomeLocation:
    path = home.absolute()
    return HomeLocation(path=str(path), host=socket.gethostname(), inode=os.stat(path).st_ino)


def _write(home: Path, whereabouts: HomeLocation) -> None:
    write_atomic(home / FILE, whereabouts.model_dump_json(indent=2) + "\n")
