"""The weighted mean of updates, one block at a time.

Memory holds the mean and a few blocks, whatever the number of sites. Site after site adds
``share * x`` to a block's mean (FedAvg, McMahan et al., 2017); ``site_weights.py`` gives the
shares. The same updates in the same order give the same bits on any number of threads, so callers
pass sites in the order of their names.

NumPy's loops release Python's lock and never wait for each other. torch's own threads synchronise
after each operation, which took ten times as long on a machine with other work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Reader = Callable[[int, int], AbstractContextManager[Array]]
"""A context manager over values ``[start, stop)`` of an update."""

BLOCK = 1 << 20
"""Values per block: 4 MiB of float32, which stay in a processor's cache from site to site."""
MOST_THREADS = 4
"""A few cores already reach the memory bandwidth."""


def average(mean: Array, updates: Sequence[Reader], shares: Sequence[float]) -> None:
    """Replace an array's values by the weighted mean of updates.

    Args:
        mean: Receives the mean, ``(N,)``; counters, which have no mean, get the highest value.
        updates: At least one; each has ``N`` values of the same dtype.
        shares: The weight of each update; they add up to 1.
    """
    assert updates, "no update to average"

    def average_block(start: int) -> None:
        _average_block(mean[start : start + BLOCK], start, updates, shares)

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(average_block, range(0, len(mean), BLOCK)):
            pass


def _average_block(
    mean: Array, start: int, updates: Sequence[Reader], shares: Sequence[float]
) -> None:
    scratch = np.empty_like(mean)
    for number, (read, share) in enumerate(zip(updates, shares, strict=True)):
        with read(start, start + len(mean)) as values:
            _add(mean, values, share, scratch, first=number == 0)
            del values  # a map cannot be closed while something points into it


def _add(mean: Array, values: Array, share: float, scratch: Array, *, first: bool) -> None:
    """Add one site's weighted values to a mean; ``scratch`` has the mean's shape."""
    if not np.issubdtype(mean.dtype, np.floating):  # a counter
        np.maximum(values, values if first else mean, out=mean)
    elif first:
        np.multiply(values, share, out=mean)
    else:
        np.multiply(values, share, out=scratch)
        with np.errstate(over="ignore"):  # shares may add up to slightly over 1
            np.add(mean, scratch, out=mean)
