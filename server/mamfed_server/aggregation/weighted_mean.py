"""FedAvg, a block at a time: memory holds the mean and a few blocks, whatever the number of sites.

Site after site adds ``share * x`` to a block's mean (McMahan et al., 2017); ``site_weights.py``
gives the shares. In the same order the same updates give the same bits, on any number of threads:
callers give sites in the order of their names.

NumPy's loops leave Python's lock and never wait for each other. torch's own threads meet after each
operation: beside other work on the machine that was measured at ten times the time.
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
"""Opens values ``[start, stop)`` of an update for as long as its context lasts."""

BLOCK = 1 << 20
"""Values of a block: 4 MiB of float32, which a processor's cache holds from site to site."""
MOST_THREADS = 4
"""Memory's speed is the limit; a few cores reach it."""


def average(mean: Array, updates: Sequence[Reader], shares: Sequence[float]) -> None:
    """Put the mean of updates, each with its share, in place of an array's values.

    Args:
        mean: Takes the mean, ``(N,)``; of a counter, which has none, the furthest value.
        updates: At least one; each of ``N`` values of the same dtype.
        shares: Theirs of the mean, which add up to 1.
    """
    assert updates, "mean of no update"

    def average_block(start: int) -> None:
        _average_block(mean[start : start + BLOCK], start, updates, shares)

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(average_block, range(0, len(mean), BLOCK)):
            pass


def _average_block(
    mean: Array, start: int, updates: Sequence[Reader], shares: Sequence[float]
) -> None:
    part = np.empty_like(mean)
    for number, (read, share) in enumerate(zip(updates, shares, strict=True)):
        with read(start, start + len(mean)) as values:
            _add(mean, values, share, part, first=number == 0)
            del values  # a map cannot be closed while something points into it


def _add(mean: Array, values: Array, share: float, part: Array, *, first: bool) -> None:
    """Add one site's part to a mean; ``part`` is room for it."""
    if not np.issubdtype(mean.dtype, np.floating):  # a counter
        np.maximum(values, values if first else mean, out=mean)
    elif first:
        np.multiply(values, share, out=mean)
    else:
        np.multiply(values, share, out=part)
        with np.errstate(over="ignore"):  # shares may add up to a rounding more than 1
            np.add(mean, part, out=mean)
