"""Polls that wait here until there is a request to their node.

A node that asks for a message and gets "none" has to ask again, and the more nodes wait, the more
of a core such polls fill. So a poll is answered when a request to its node is stored, or after a
while. A node has one poll here at a time: a newer one, a new start or a farewell of the node ends
the one before, which then takes nothing, because nobody may be left to read its answer. While polls
wait, their sites are looked at regularly: a revocation ends the poll.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mamfed_server.fleet.denial import Receive, RequestDenied

HELD_SECONDS = 20
"""The longest wait that is granted."""
LOOK_SECONDS = 2.0


class Caller(NamedTuple):
    """Who waits for the answer to a poll.

    Attributes:
        seconds: How long the answer may take.
        gone: Returns when its connection is lost.
        look: Called from a thread while it waits; raises RequestDenied if it may wait no longer.
    """

    seconds: float
    gone: Callable[[], Awaitable[object]]
    look: Callable[[], None]


class _Poll:
    """One poll, in the event loop that serves it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = self._loop.create_future()

    def end(self, is_answered: bool, denied: RequestDenied | None = None) -> None:
        """End it from any thread: with an answer, or without one that anybody reads."""
        try:
            self._loop.call_soon_threadsafe(self._end, is_answered, denied)
        except RuntimeError:  # the loop is closed, and with it the connection
            pass

    def _end(self, is_answered: bool, denied: RequestDenied | None) -> None:
        if self.ended.done():
            return
        if denied is None:
            self.ended.set_result(is_answered)
        else:
            self.ended.set_exception(denied)


class HeldPolls:
    """The polls of all nodes; safe to call from any thread."""

    def __init__(self, is_there: Callable[[int], bool], look_seconds: float = LOOK_SECONDS) -> None:
        """Start without polls.

        Args:
            is_there: Returns whether there is a request to a node.
            look_seconds: How often the sites of waiting polls are looked at.
        """
        self._is_there, self._look_seconds = is_there, look_seconds
        self._lock = threading.Lock()
        self._polls: dict[int, _Poll] = {}
        self._watch: asyncio.Task[None] | None = None
        self._is_closed = False

    def wake(self, node_id: int) -> None:
        """Answer a node's poll: there is a request to it."""
        with self._lock:
            poll = self._polls.get(node_id)
        if poll is not None:
            poll.end(is_answered=True)

    def drop(self, node_id: int) -> None:
        """End a node's poll, which takes nothing: its process has ended, or ends."""
        with self._lock:
            poll = self._polls.pop(node_id, None)
        if poll is not None:
            poll.end(is_answered=False)

    def close(self) -> None:
        """Answer all polls, and from now on each one at once."""
        with self._lock:
            self._is_closed = True
            polls = list(self._polls.values())
        for poll in polls:
            poll.end(is_answered=True)

    async def wait(self, node_id: int, caller: Caller) -> bool:
        """Wait until there is a request to a node, or the caller's time is over.

        Returns:
            Whether somebody still waits for the answer.

        Raises:
            RequestDenied: The caller may wait no longer.
        """
        poll = _Poll(caller)
        self.drop(node_id)
        with self._lock:
            if self._is_closed or caller.seconds <= 0:
                return True
            self._polls[node_id] = poll
        if self._is_there(node_id):
            poll.ended.set_result(True)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_regularly())
        gone = asyncio.ensure_future(caller.gone())
        either: set[asyncio.Future[Any]] = {poll.ended, gone}
        try:
            await asyncio.wait(either, timeout=caller.seconds, return_when=asyncio.FIRST_COMPLETED)
            is_gone = gone.done() and not poll.ended.done()
        finally:
            gone.cancel()
            with self._lock:
                if self._polls.get(node_id) is poll:
                    del self._polls[node_id]
        return not is_gone and (not poll.ended.done() or poll.ended.result())

    def __len__(self) -> int:
        """Return the number of polls that wait."""
        return len(self._polls)

    async def _look_regularly(self) -> None:
        while polls := self._all():
            await asyncio.to_thread(_look_at, polls)
            await asyncio.sleep(self._look_seconds)

    def _all(self) -> list[_Poll]:
        with self._lock:
            return list(self._polls.values())


def _look_at(polls: list[_Poll]) -> None:
    for poll in polls:
        try:
            poll.caller.look()
        except RequestDenied as denied:
            poll.end(is_answered=False, denied=denied)


async def hung_up(receive: Receive) -> None:
    """Wait until a connection is lost."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def refused_at_stop(answer: Awaitable[None]) -> None:
    """Wait for an answer; a listener that stops cancels what waits."""
    try:
        await answer
    except asyncio.CancelledError:
        raise RequestDenied(503, "the coordinator stops; ask again") from None
