"""A pool of threads and decoding processes; each decoder serves one thread at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

from mamfed_client.sandbox.decoder import Decoder

MAX_DECODERS = 8
"""Decoding a full-size mammogram takes about 300 MB of memory."""


class DecoderPool:
    """A thread pool with one decoder per thread.

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
def open_decoder_pool(tasks: int) -> Iterator[DecoderPool]:
    """Start at most one thread and decoder per task, and stop them on exit.

    On an interruption, queued tasks are cancelled. If there are more cores than decoders, each
    decoder uses several threads.
    """
    cores = os.cpu_count() or 1
    count = max(1, min(MAX_DECODERS, cores, tasks))
    decoders: SimpleQueue[Decoder] = SimpleQueue()
    pool = ThreadPoolExecutor(count)
    with ExitStack() as stack:
        for _ in range(count if tasks else 0):
            decoders.put(stack.enter_context(Decoder(threads=cores // count)))
        try:
            yield DecoderPool(pool, decoders)
        finally:
            pool.shutdown(cancel_futures=True)
