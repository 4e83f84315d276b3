"""Several decoding processes side by side, each used by one thread at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

from mamfed_client.sandbox.decoder import Decoder

MOST_READERS = 8
"""A full-size mammogram takes some 300 MB while it is read."""


class Readers:
    """Threads, and as many decoders for them."""

    def __init__(self, pool: ThreadPoolExecutor, decoders: SimpleQueue[Decoder]) -> None:
        """Hold what :func:`readers` has started."""
        self.pool = pool
        self._decoders = decoders

    @contextmanager
    def decoder(self) -> Iterator[Decoder]:
        """Borrow whichever decoder is free."""
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)


@contextmanager
def readers(tasks: int) -> Iterator[Readers]:
    """Start no more threads than there are tasks; an interruption does not wait for the queue.

    Where there are more cores than files to read at once, each decoder has several.
    """
    cores = os.cpu_count() or 1
    count = max(1, min(MOST_READERS, cores, tasks))
    decoders: SimpleQueue[Decoder] = SimpleQueue()
    pool = ThreadPoolExecutor(count)
    with ExitStack() as stack:
        for _ in range(count if tasks else 0):
            decoders.put(stack.enter_context(Decoder(threads=cores // count)))
        try:
            yield Readers(pool, decoders)
        finally:
            pool.shutdown(cancel_futures=True)
