"""One request to several sites, and what comes back: who restarted is asked again.

Sites answer in any order, minutes or hours later; some lose their connection, restart and have
forgotten what they were asked (Flower 1.41-1.42 then answers in their place with a code, or not at
all). Each reply is handed on as it arrives and let go before the next is pulled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from mamfed_common.errors import MamfedError
from mamfed_common.protocol.tasks import REFUSAL_CODES
from mamfed_common.runtime.polling import pause_seconds
from mamfed_common.runtime.wording import counted, span
from mamfed_server.run.transport import UNREAD, Transport, free_arrays

LONGEST_PAUSE = 0.2
"""Between two looks at what sites have sent: the wish to stop is heard within this time too."""
AGAIN_SECONDS = 1.0
"""No site is asked twice within this time, however quickly its node fails."""
MAX_CRASHES = 3
LOST = frozenset(
    {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE}
)
"""Flower's codes for work that a node took with it: nothing is wrong with the site."""

Nodes = Mapping[str, int]
"""Flower's node id by the name of the site."""


class StopRequested(MamfedError):
    """The run was asked to stop; what it had reached is in its folder, and it can go on."""

    exit_code = 0


class SiteReply(NamedTuple):
    """What came back from one site.

    Attributes:
        content: The answer, None where there is none.
        reason: Why there is none.
        seconds: From the first time that the site was asked to its answer, or to its deadline
            where it let that pass; None where it could not be asked.
    """

    content: RecordDict | None
    reason: str = ""
    seconds: float | None = None


Take = Callable[[str, SiteReply], None]


class SitePoller:
    """A transport, since when its nodes have been away, and the wish to stop."""

    def __init__(
        self,
        transport: Transport,
        *,
        offline_seconds: float,
        stopping: Callable[[], bool],
        on_presence: Callable[[int, bool], None] = lambda node_id, online: None,
        on_asked_again: Callable[[str, str], None] = lambda site, reason: None,
    ) -> None:
        """Watch a transport.

        Args:
            transport: What carries the messages.
            offline_seconds: How long a node may be away before its site is given up.
            stopping: Tells whether to stop.
            on_presence: Called when a node comes (True) or goes (False).
            on_asked_again: Called with a site and why it is asked a second time.
        """
        self.transport = transport
        self.offline_seconds = offline_seconds
        self.on_asked_again = on_asked_again
        self._stopping = stopping
        self._on_presence = on_presence
        self._stirred_at = time.monotonic()
        self._here: set[int] = set()
        self._away_since: dict[int, float] = {}

    def online(self) -> Mapping[int, str]:
        """Return the nodes that are connected, each with its stamp; note who came and went."""
        online = self.transport.online()
        for node_id in sorted(online.keys() - self._here):
            self._here.add(node_id)
            self._away_since.pop(node_id, None)
            self._on_presence(node_id, True)
        for node_id in sorted(self._here - online.keys()):
            self._here.remove(node_id)
            self._away_since[node_id] = time.monotonic()
            self._on_presence(node_id, False)
        return online

    def given_up(self, node_id: int) -> bool:
        """Tell whether a node has been away for too long, as of the last look."""
        if node_id in self._here:
            return False
        since = self._away_since.setdefault(node_id, time.monotonic())
        return time.monotonic() - since >= self.offline_seconds

    def check_stopping(self) -> None:
        """End the run where it was asked to.

        Raises:
            Stopped: It was.
        """
        if self._stopping():
            raise StopRequested(
                "the run was stopped; start it again to go on from its last checkpoint"
            )

    def stir(self) -> None:
        """Look more often for a while: something was sent, or has come."""
        self._stirred_at = time.monotonic()

    def pause(self) -> None:
        """Wait between two looks."""
        self.check_stopping()
        time.sleep(pause_seconds(time.monotonic() - self._stirred_at, LONGEST_PAUSE))

    def ask(
        self,
        message_type: str,
        request: RecordDict,
        nodes: Nodes,
        deadlines: Mapping[str, float],
        take: Take,
    ) -> int:
        """Ask sites; hand on each reply as it comes, one for every site.

        Args:
            message_type: Flower's type of the message.
            request: What to send. It is empty afterwards.
            nodes: The sites.
            deadlines: How long each site is waited for, in seconds.
            take: Called once for each site.

        Returns:
            How many requests were sent, repeated ones too.

        Raises:
            Stopped: The run was asked to stop.
        """
        exchange = PendingRequest(self, message_type, request)
        try:
            for site, node_id in nodes.items():
                exchange.add(site, node_id, deadlines[site])
            exchange.poll(take)  # sends; what is answered at once is not waited for
            while exchange.pending:
                exchange.poll(take)
                if exchange.pending:
                    self.pause()
        finally:
            exchange.close()
            free_arrays(request)
        return exchange.sent


@dataclass
class _Ask:
    """Where a site stands."""

    node_id: int
    deadline_seconds: float
    since: float = field(default_factory=time.monotonic)
    asked: bool = False
    message_id: str | None = None
    stamp: str = ""
    again_at: float = 0.0
    crashes: int = 0

    def elapsed(self) -> float:
        return time.monotonic() - self.since


class PendingRequest:
    """One request, sent to each site until it has answered, refused, or is given up."""

    def __init__(self, link: SitePoller, message_type: str, request: RecordDict) -> None:
        """Ask nobody yet."""
        self._link = link
        self._message_type = message_type
        self._request = request
        self._asks: dict[str, _Ask] = {}
        self._on_their_way = 0
        self.sent = 0

    @property
    def pending(self) -> Collection[str]:
        """The sites whose answer is still to come."""
        return self._asks.keys()

    def add(self, site: str, node_id: int, deadline_seconds: float) -> None:
        """Ask a site at the next poll at which it is there."""
        self._asks[site] = _Ask(node_id, deadline_seconds)

    def drop(self, sites: Iterable[str]) -> None:
        """Want no answer any more from some sites."""
        for site in sites:
            self._forget(self._asks.pop(site))

    def close(self) -> None:
        """Want no answer any more."""
        self.drop(list(self._asks))

    def poll(self, take: Take) -> None:
        """Look once at every site: take its answer, ask it again, or give it up.

        Raises:
            Stopped: The run was asked to stop.
        """
        online = self._link.online()
        for site in sorted(self._asks):
            self._link.check_stopping()
            self._look_at(site, online, take)

    def _look_at(self, site: str, online: Mapping[int, str], take: Take) -> None:
        ask = self._asks[site]
        # An answer that is there counts, late or not: in process it is made by this call.
        reply = self._pull(site, ask)
        if reply is None:
            reply = self._give_up(ask)
        if reply is None:
            self._send(site, ask, online)
            return
        self._link.stir()
        self.drop([site])
        take(site, reply)
        if reply.content is not None:
            free_arrays(reply.content)

    def _pull(self, site: str, ask: _Ask) -> SiteReply | None:
        message = self._link.transport.pull(ask.message_id) if ask.message_id else None
        if message is None:
            return None
        self._set(ask, None)
        if not message.has_error():
            return SiteReply(message.content, seconds=ask.elapsed())
        return self._failure(site, ask, message)

    def _failure(self, site: str, ask: _Ask, message: Message) -> SiteReply | None:
        """Read a code: None where the site is to be asked again. Its words are not read."""
        code = message.error.code
        if code in LOST:
            self._link.on_asked_again(site, "its node lost the request")
            return None
        if code != ErrorCode.CLIENT_APP_CRASHED:
            reason = (REFUSAL_CODES | UNREAD).get(code, f"the site failed (Flower error {code})")
            return SiteReply(None, reason, ask.elapsed())
        ask.crashes += 1
        if ask.crashes < MAX_CRASHES:
            self._link.on_asked_again(site, "its worker died")
            return None
        return SiteReply(None, f"its worker died {counted(ask.crashes, 'time')}", ask.elapsed())

    def _give_up(self, ask: _Ask) -> SiteReply | None:
        if ask.elapsed() >= ask.deadline_seconds:
            seconds = ask.deadline_seconds if ask.asked else None
            return SiteReply(None, f"no answer within {span(ask.deadline_seconds)}", seconds)
        if self._link.given_up(ask.node_id):
            return SiteReply(None, f"offline for {span(self._link.offline_seconds)}")
        return None

    def _send(self, site: str, ask: _Ask, online: Mapping[int, str]) -> None:
        """Send the request where the site is there and does not have it."""
        stamp = online.get(ask.node_id)
        if stamp is None:
            return
        if ask.message_id and stamp != ask.stamp:
            self._forget(ask)
            self._link.on_asked_again(site, "its node restarted")
        now, transport = time.monotonic(), self._link.transport
        full = self._on_their_way >= transport.window
        if ask.message_id or now < ask.again_at or full:
            return
        left = ask.deadline_seconds - ask.elapsed() if ask.asked else ask.deadline_seconds
        self._set(ask, transport.push(ask.node_id, self._message_type, self._request, left))
        ask.stamp, ask.again_at = stamp, now + AGAIN_SECONDS
        if ask.message_id:
            self._link.stir()
            self.sent += 1
            ask.since, ask.asked = (ask.since if ask.asked else now), True

    def _forget(self, ask: _Ask) -> None:
        if ask.message_id:
            self._link.transport.forget([ask.message_id])
        self._set(ask, None)

    def _set(self, ask: _Ask, message_id: str | None) -> None:
        """Take note which request to a site is on its way."""
        self._on_their_way += bool(message_id) - bool(ask.message_id)
        ask.message_id = message_id
