"""The SHA-256 of a file, while something else is done to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

PIECE = 1 << 20
"""Bytes after which the hashing looks whether it is still wanted."""


@contextmanager
def hashing(data: bytes) -> Iterator[Callable[[], str]]:
    """Hash a file while it is decoded, which takes as long where it is not compressed.

    Hashing leaves the interpreter's lock. Of a file that is refused meanwhile the rest is not
    hashed: nobody asks, and it may be a stack of 500 MiB.

    Yields:
        What waits for the SHA-256 and returns it in hexadecimal.
    """
    digest, view, refused = hashlib.sha256(), memoryview(data), Event()

    def update() -> None:
        for start in range(0, len(data), PIECE):
            if refused.is_set():
                return
            digest.update(view[start : start + PIECE])

    thread = Thread(target=update)
    thread.start()

    def finished() -> str:
        thread.join()
        return digest.hexdigest()

    try:
        yield finished
    finally:
        refused.set()
        thread.join()
