"""Doing what comes next in the background, while the caller works on what came before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2

T = TypeVar("T")


def prefetch(calls: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Yield what calls return, in their order, with the next ones under way in threads.

    Nothing begins before the first result is asked for. From then on ``threads`` calls are under
    way or done and not yet taken, never more. An exception of a call comes out in its turn. When
    the iterator is closed, or dropped, no other call begins and no thread is left.

    Args:
        calls: What to do; no call may depend on another.
        threads: How many at once, at least 1.
    """
    coming = iter(calls)
    with ThreadPoolExecutor(threads, "ahead", initializer=_leave_cores_alone) as pool:
        waiting = deque(pool.submit(call) for call in islice(coming, threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(call) for call in islice(coming, 1))
            yield result


def _leave_cores_alone() -> None:
    """Keep cv2, in the whole process, from using every core for calls that run side by side."""
    cv2.setNumThreads(1)
