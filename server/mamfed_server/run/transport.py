"""Carry messages between the round loop and the sites.

:class:`GridTransport` goes over a Flower ``Grid`` (a simulation); ``link_transport.LinkTransport``
goes over the SuperLink of this process (a federation between machines).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

REQUESTS_PER_CORE = 4
TOO_LARGE, UNREADABLE = 201, 202
UNREAD = {
    TOO_LARGE: "its answer is larger than any can be",
    UNREADABLE: "its answer cannot be put together",
}
"""Error codes of answers that a transport refuses before they are read."""


class Transport(Protocol):
    """Messages to nodes and their replies.

    Attributes:
        window: Maximum requests of one exchange in transit at once.
    """

    window: int

    def online(self) -> Mapping[int, str]:
        """Return the connected nodes, each with a stamp that changes when the node restarts.

        A restarted node has forgotten its requests.
        """

    def push(
        self, node_id: int, message_type: str, content: RecordDict, ttl_seconds: float
    ) -> str | None:
        """Send a request and return its id; None if the node cannot be reached now."""

    def pull(self, message_id: str) -> Message | None:
        """Return the reply to a request, once; None if there is none yet."""

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop requests whose replies are no longer wanted."""


class GridTransport:
    """A Flower Grid, whose nodes never restart (Flower 1.41-1.42).

    For each node, Flower's engine searches all waiting requests, and it keeps every reply until it
    is pulled. Therefore it gets a few more requests than its cores can handle, not a thousand.
    """

    def __init__(self, grid: Grid) -> None:
        """Send over this grid."""
        self.window = REQUESTS_PER_CORE * (os.cpu_count() or 1)
        self._grid = grid

    def online(self) -> Mapping[int, str]:
        """Return all nodes."""
        return dict.fromkeys(sorted(self._grid.get_node_ids()), "")

    def push(
        self, node_id: int, message_type: str, content: RecordDict, ttl_seconds: float
    ) -> str | None:
        """Send a request."""
        message = Message(content, dst_node_id=node_id, message_type=message_type, ttl=ttl_seconds)
        (message_id,) = self._grid.push_messages([message])
        return message_id

    def pull(self, message_id: str) -> Message | None:
        """Return a reply."""
        for reply in self._grid.pull_messages([message_id]):
            return reply
        return None

    def forget(self, message_ids: Iterable[str]) -> None:
        """Do nothing: a simulation ends with its process."""


def free_arrays(content: RecordDict) -> None:
    """Free the arrays of a message at once.

    Reading ``RecordDict.array_records`` creates a reference cycle (Flower 1.41-1.42), which would
    keep a model in memory until Python's garbage collector runs.
    """
    for record in content.values():
        record.clear()
