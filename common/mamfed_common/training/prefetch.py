"""Run the next calls in background threads while the caller works on earlier results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2

T = TypeVar("T")


def prefetch(calls: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Yield the results of calls in order, with the next calls already running in threads.

    Nothing starts before the first result is requested. From then on at most ``threads`` calls are
    running or finished and not yet yielded. An exception in a call is raised when its result is
    due. When the iterator is closed or dropped, no further call starts and no thread remains.

    Args:
        calls: Callables that do not depend on each other.
        threads: Number of concurrent calls, at least 1.
    """
    remaining = iter(calls)
    with ThreadPoolExecutor(threads, "ahead", initializer=_leave_cores_alone) as pool:
        pending = deque(pool.submit(call) for call in islice(remaining, threads))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(call) for call in islice(remaining, 1))
            yield result


def _leave_cores_alone() -> None:
    """Limit cv2 to one thread in this process, because the calls already run concurrently."""
    cv2.setNumThreads(1)
