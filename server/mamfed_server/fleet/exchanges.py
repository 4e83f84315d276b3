"""What the coordinator has asked of each node, and what arrives in reply.

An exchange is one request to one node and the reply to it. A node can only read the objects of
requests to it, and only reply to those requests. A reply lives in its exchange alone: nothing of it
is shared with other nodes, and all of it is freed when the exchange ends. Safe to call from any
thread.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import NamedTuple

from google.protobuf.message import Message as ProtoMessage

ARRIVAL_SECONDS = 180.0
"""A reply is given up when no part of it has come for this time (as in Flower 1.41-1.42)."""
SPARE_OBJECTS = 64
BYTES_PER_OBJECT = 2**20
"""A reply may have one object for so many bytes, and the spare ones; Flower's parts have 5 MiB."""


class Reply(NamedTuple):
    """A reply as it has arrived.

    Attributes:
        message_id: Its id, which is also that of its root object.
        error: Flower's error code, if it is nothing else; None: it has objects.
        contents: Its objects by id; None while some are missing.
        is_lost: Whether nothing of it has arrived for too long.
    """

    message_id: str
    error: int | None
    contents: dict[str, bytes] | None
    is_lost: bool


@dataclass
class _Exchange:
    node_id: int
    readable: frozenset[str]
    offer: ProtoMessage | None = None
    is_fetched: bool = False
    reply_id: str = ""
    error: int | None = None
    session: str = ""
    wanted: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)
    stirred_at: float = 0.0


class Exchanges:
    """All exchanges under way.

    Attributes:
        max_bytes: Maximum number of bytes that one node may push between two requests to it.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        """Start without exchanges.

        Args:
            max_bytes: Maximum number of bytes that one node may push between two requests to it.
            clock: Returns the time in seconds.
        """
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._by_request: dict[str, _Exchange] = {}
        self._by_session: dict[str, _Exchange] = {}
        self._by_node: dict[int, dict[str, _Exchange]] = {}
        self._pushed: Counter[int] = Counter()

    def begin(self, request_id: str, node_id: int, objects: Iterable[str]) -> None:
        """Record a request to a node before it is stored; its quota starts anew."""
        with self._lock:
            exchange = _Exchange(node_id, frozenset(objects))
            self._by_request[request_id] = exchange
            self._by_node.setdefault(node_id, {})[request_id] = exchange
            self._pushed[node_id] = 0

    def offer(self, request_id: str, offer: ProtoMessage) -> None:
        """Let the node fetch a request, now that it is stored; ``offer`` answers its poll."""
        with self._lock:
            self._by_request[request_id].offer = offer

    def fetch(self, node_id: int, *, again: bool) -> ProtoMessage | None:
        """Return the offer of a node's oldest request that it has not fetched, if there is one.

        Args:
            node_id: The node.
            again: Whether to return a request again, as long as the node has not confirmed it: the
                answer to its poll may have been lost.
        """
        with self._lock:
            exchange = self._unfetched(node_id, again=again)
            if exchange is None:
                return None
            exchange.is_fetched = True
            return exchange.offer

    def has_offer(self, node_id: int, *, again: bool) -> bool:
        """Return whether :meth:`fetch` would return one."""
        with self._lock:
            return self._unfetched(node_id, again=again) is not None

    def confirm(self, request_id: str) -> None:
        """Record that a request has arrived whole: it is not offered again."""
        with self._lock:
            if exchange := self._by_request.get(request_id):
                exchange.offer = None

    def end(self, request_id: str) -> None:
        """Forget a request and free everything that has arrived in reply."""
        with self._lock:
            exchange = self._by_request.pop(request_id, None)
            if exchange is not None:
                self._by_session.pop(exchange.session, None)
                del self._by_node[exchange.node_id][request_id]

    def reply(self, request_id: str) -> Reply | None:
        """Return what has arrived in reply to a request; None: the reply has not begun."""
        with self._lock:
            exchange = self._by_request.get(request_id)
            if exchange is None or not exchange.reply_id:
                return None
            silent = self._clock() - exchange.stirred_at
            return Reply(
                exchange.reply_id,
                exchange.error,
                None if exchange.wanted else exchange.contents,
                bool(exchange.wanted) and silent > ARRIVAL_SECONDS,
            )

    def is_addressed_to(self, node_id: int, request_id: str) -> bool:
        """Return whether a request under way is to this node."""
        with self._lock:
            exchange = self._by_request.get(request_id)
            return exchange is not None and exchange.node_id == node_id

    def may_read(self, node_id: int, object_id: str) -> bool:
        """Return whether an object belongs to a request to this node that is under way."""
        with self._lock:
            mine = self._by_node.get(node_id, {}).values()
            return any(object_id in exchange.readable for exchange in mine)

    def count(self, node_id: int, length: int) -> bool:
        """Count bytes that a node pushes; return whether they are within its quota."""
        with self._lock:
            self._pushed[node_id] += length
            return self._pushed[node_id] <= self.max_bytes

    def begin_reply(
        self,
        node_id: int,
        request_id: str,
        reply_id: str,
        *,
        objects: Collection[str] = (),
        error: int | None = None,
    ) -> tuple[str, list[str]] | None:
        """Begin a node's reply, or continue it if the node repeats itself.

        Args:
            node_id: The node.
            request_id: The request that it replies to.
            reply_id: Id of the reply, which is also that of its root object.
            objects: Ids of all its objects.
            error: Flower's error code, in place of objects.

        Returns:
            The session in which objects are pushed, and those that are missing; None if the node
            was not asked this, or has begun another reply.
        """
        with self._lock:
            exchange = self._by_request.get(request_id)
            if exchange is None or exchange.node_id != node_id:
                return None
            if exchange.reply_id and (
                exchange.reply_id != reply_id or exchange.wanted - set(objects)
            ):
                return None
            if not exchange.reply_id:
                exchange.reply_id, exchange.error = reply_id, error
                exchange.wanted = set(objects)
                exchange.session = secrets.token_hex(16)
                self._by_session[exchange.session] = exchange
            exchange.stirred_at = self._clock()
            return exchange.session, sorted(exchange.wanted)

    def store(self, node_id: int, session: str, object_id: str, content: bytes) -> bool:
        """Keep an object of a node's reply; return whether it is one."""
        with self._lock:
            exchange = self._by_session.get(session)
            if exchange is None or exchange.node_id != node_id:
                return False
            if object_id not in exchange.wanted:
                return object_id in exchange.contents  # pushed again: its answer was lost
        if sha256(content).hexdigest() != object_id:
            return False
        with self._lock:
            if self._by_session.get(session) is not exchange:
                return False
            exchange.wanted.discard(object_id)
            exchange.contents[object_id] = content
            exchange.stirred_at = self._clock()
            return True

    def max_objects(self) -> int:
        """Return the maximum number of objects of a reply."""
        return SPARE_OBJECTS + self.max_bytes // BYTES_PER_OBJECT

    def held_bytes(self) -> int:
        """Return the total size of what has arrived in all replies under way."""
        with self._lock:
            return sum(len(c) for e in self._by_request.values() for c in e.contents.values())

    def _unfetched(self, node_id: int, *, again: bool) -> _Exchange | None:
        for exchange in self._by_node.get(node_id, {}).values():
            if exchange.offer and not exchange.reply_id and (again or not exchange.is_fetched):
                return exchange
        return None

    def __len__(self) -> int:
        """Return the number of exchanges under way."""
        return len(self._by_request)
