"""A pool of threads and decoding processes; each decoder serves one thread at a time.

The process keeps freed memory from then on: threads would otherwise return the pages of every image
to the system and fetch them again, which takes a quarter of their time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.model.malloc import keep_freed_memory

MAX_DECODERS = 8
"""Decoding a full-size mammogram takes about 300 MB of memory."""


class DecoderPool:
    """A thread pool with decoders to borrow.

    Attributes:
        pool: The threads.
    """

    def __init__(self, pool: ThreadPoolExecutor, decoders: SimpleQueue[Decoder]) -> None:
        """Wrap the threads and decoders that :func:`open_decoder_pool` has started."""
        self.pool = pool
        self._decoders = decoders

    @contextmanager
    def decoder(self) -> Iterator[Decoder]:
        """Borrow a free decoder, waiting for one if necessary."""
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)


@contextmanager
def open_decoder_pool(tasks: int, threads_per_decoder: int = 2) -> Iterator[DecoderPool]:
    """Start at most one decoder per task, with threads that borrow it, and stop them on exit.

    On an interruption, queued tasks are cancelled. If there are more cores than decoders, each
    decoder uses several threads.

    Args:
        tasks: Number of tasks.
        threads_per_decoder: How many threads take turns at a decoder. With two, one works on an
            image, or waits for the disk, while the other's is decoded.
    """
    cores = os.cpu_count() or 1
    count = max(1, min(MAX_DECODERS, cores, tasks))
    decoders: SimpleQueue[Decoder] = SimpleQueue()
    pool = ThreadPoolExecutor(count * threads_per_decoder)
    if tasks:
        keep_freed_memory()
    with ExitStack() as stack:
        for _ in range(count if tasks else 0):
            decoders.put(stack.enter_context(Decoder(threads=cores // count)))
        try:
            yield DecoderPool(pool, decoders)
        finally:
            pool.shutdown(cancel_futures=True)
