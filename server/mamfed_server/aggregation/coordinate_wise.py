"""Combine updates value by value, one block of all sites at a time, in bounded memory.

Unlike the mean, an order statistic needs the values of all sites at once. A block is therefore the
smaller, the more sites there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from mamfed_server.aggregation.weighted_mean import BLOCK, MOST_THREADS, Array, Reader

BlockReducer = Callable[[Array], Array]
"""``(sites, n)`` values -> ``(n,)`` of the same dtype."""

STACK_BYTES = 32 << 20
"""Memory for one block of all sites, in each thread."""
SMALLEST_BLOCK_BYTES = 64 << 10
"""A map begins at a multiple of a page, which Linux may make this large (arm64)."""


def reduce_blocks(result: Array, updates: Sequence[Reader], reduce: BlockReducer) -> None:
    """Replace an array's values by what ``reduce`` makes of the updates' values.

    Args:
        result: Receives the result, ``(N,)``; counters, which no statistic fits, get the highest
            value.
        updates: At least one; each has ``N`` values of the same dtype.
        reduce: Combines the values of a block.
    """
    assert updates, "no update to combine"
    counter = not np.issubdtype(result.dtype, np.floating)
    block = block_length(len(updates), result.dtype.itemsize)

    def reduce_block(start: int) -> None:
        part = result[start : start + block]
        stack = np.empty((len(updates), len(part)), result.dtype)
        for row, read in zip(stack, updates, strict=True):
            with read(start, start + len(part)) as values:
                row[:] = values
                del values  # a map cannot be closed while something points into it
        part[:] = stack.max(axis=0) if counter else reduce(stack)

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(reduce_block, range(0, len(result), block)):
            pass


def block_length(num_sites: int, itemsize: int) -> int:
    """Return the values of a block, a power of two: as many as ``STACK_BYTES`` has room for."""
    room = STACK_BYTES // (num_sites * itemsize)
    fitting = 1 << max(room.bit_length() - 1, 0)
    return min(max(fitting, SMALLEST_BLOCK_BYTES // itemsize), BLOCK)


def trimmed_mean(values: Array, cut: int) -> Array:
    """Return the mean over sites of each value without its ``cut`` lowest and highest ones.

    Args:
        values: ``(sites, n)``; it is sorted in place.
        cut: Fewer than half of the sites.
    """
    values.sort(axis=0)
    kept = values[cut : len(values) - cut]
    return cast(Array, kept.mean(axis=0, dtype=values.dtype))
