"""One process at a time: a locked file that names who holds it. A kill leaves no lock behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from mamfed_common.errors import SetupError

PATIENCE_SECONDS = 1.0
"""Who only looks (:func:`holder`) holds the lock for a moment, which must turn nobody away."""


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: The lock file; it is made where there is none (0600).
        what: What may run but once, for the error.

    Raises:
        SetupError: Another process holds it, or the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        if not _locked(descriptor):
            pid = _read(descriptor)
            raise SetupError(f"{path.parent}: {what} runs here already (process {pid}); stop it")
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Return the process that holds a lock, None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                return False
            sleep(0.05)
        else:
            return True


def _read(descriptor: int) -> int:
    """Return the process id in a lock file; 0 in the moment before it is written."""
    text = os.pread(descriptor, 20, 0)
    return int(text) if text.isdigit() else 0
