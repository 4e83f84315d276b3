"""The recorded location of a site's home, to detect that a home has been copied.

A home holds the site's identity. If it is copied to another machine, or restored beside the old
one, two processes may share that identity. The coordinator cannot tell them apart, and a message
may reach either.
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
    """Location of a home when it was created or last started.

    Attributes:
        path: Absolute path.
        host: Host name of the machine or container.
        inode: Inode number of the folder, which differs in a copy.
    """

    path: str
    host: str
    inode: int


def record_home_location(home: Path) -> None:
    """Record the location of a home, unless it is already recorded."""
    if not (home / FILE).exists():
        _write(home, _here(home))


def check_home_location(home: Path) -> str:
    """Return a warning if a home is a copy, else an empty string. It warns only once.

    A home that was renamed, or mounted at another path or into another container, is no copy.
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
        f"this home was copied or restored: it was {known.path} on {known.host}. If that one is "
        "still running, stop one of the two: they share one identity, so the coordinator cannot "
        "tell them apart"
    )


def _here(home: Path) -> HomeLocation:
    path = home.absolute()
    return HomeLocation(path=str(path), host=socket.gethostname(), inode=os.stat(path).st_ino)


def _write(home: Path, location: HomeLocation) -> None:
    write_atomic(home / FILE, location.model_dump_json(indent=2) + "\n")
