"""How much one address may ask for: buckets of requests that refill with time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

MOST_ADDRESSES = 4096


class Buckets:
    """One bucket of requests for each address; called from one event loop only."""

    def __init__(
        self, size: float, per_second: float, clock: Callable[[], float] = monotonic
    ) -> None:
        """Start with full buckets.

        Args:
            size: Requests that an address may make at once.
            per_second: Requests by which its bucket refills each second.
            clock: Returns the time in seconds.
        """
        self._size, self._per_second, self._clock = size, per_second, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Take one request; return 0, or in how many seconds there will be one."""
        now = self._clock()
        left, then = self._buckets.pop(address, (self._size, now))
        left = min(self._size, left + (now - then) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._buckets[address] = (left if wait else left - 1, now)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return wait
