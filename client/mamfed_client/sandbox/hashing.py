"""Compute the SHA-256 of a file while it is being decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

PIECE = 1 << 20
"""Bytes to hash before checking again whether the hash is still wanted."""


@contextmanager
def hashing(data: bytes) -> Iterator[Callable[[], str]]:
    """Hash a file in a second thread while the caller decodes it.

    For an uncompressed file both take about the same time, and hashing releases the interpreter's
    lock. If the file is rejected, hashing stops early: it may be a stack of 500 MiB.

    Yields:
        A function that waits for the SHA-256 and returns it in hexadecimal.
    """
    digest, view, cancelled = hashlib.sha256(), memoryview(data), Event()

    def update() -> None:
        for start in range(0, len(data), PIECE):
            if cancelled.is_set():
                return
            digest.update(view[start : start + PIECE])

    thread = Thread(target=update)
    thread.start()

    def sha256() -> str:
        thread.join()
        return digest.hexdigest()

    try:
        yield sha256
    finally:
        cancelled.set()
        thread.join()
