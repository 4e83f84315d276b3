"""Send one request to several sites and collect the replies; a site that restarted is asked again.

Sites answer in any order, minutes or hours later. Some lose their connection or restart, and have
forgotten the request (Flower 1.41-1.42 then replies for them with a code, or not at all). Each
reply is passed on as it arrives and freed before the next is pulled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from mamfed_common.errors import MamfedError
from mamfed_common.protocol.flower_compat import ErrorCode
from mamfed_common.protocol.tasks import REFUSAL_CODES
from mamfed_common.runtime.polling import pause_seconds
from mamfed_common.runtime.wording import counted, span
from mamfed_server.run.site_reply import OnReply, SiteReply
from mamfed_server.run.transport import UNREAD, Transport, free_arrays

LONGEST_PAUSE = 0.2
"""Longest interval between two polls, in seconds; a request to stop is noticed within it."""
AGAIN_SECONDS = 1.0
"""Shortest interval between two requests to the same site, however quickly its node fails."""
MAX_CRASHES = 3
LOST = frozenset(
    {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE}
)
"""Flower's codes for a request that was lost with its node; the site itself is not at fault."""

Nodes = Mapping[str, int]
"""Flower's node id by site name."""


class StopRequested(MamfedError):
    """The run was asked to stop; its folder has the last checkpoint, and it can be resumed."""

    exit_code = 0


class SitePoller:
    """Polls a transport, tracks which nodes are connected, and notices a request to stop."""

    def __init__(
        self,
        transport: Transport,
        *,
        offline_seconds: float,
        stopping: Callable[[], bool],
        on_presence: Callable[[int, bool], None] = lambda node_id, online: None,
        on_asked_again: Callable[[str, str], None] = lambda site, reason: None,
    ) -> None:
        """Poll a transport.

        Args:
            transport: Carries the messages.
            offline_seconds: How long a node may be offline before the run stops waiting for it.
            stopping: Returns whether to stop.
            on_presence: Called when a node connects (True) or disconnects (False).
            on_asked_again: Called with a site and the reason why it is asked again.
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
        """Return the connected nodes with their stamps, and report changes since the last call."""
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
        """Return whether a node had been offline for too long at the last poll."""
        if node_id in self._here:
            return False
        since = self._away_since.setdefault(node_id, time.monotonic())
        return time.monotonic() - since >= self.offline_seconds

    def check_stopping(self) -> None:
        """Raise an error if the run was asked to stop.

        Raises:
            StopRequested: It was.
        """
        if self._stopping():
            raise StopRequested(
                "the run was stopped; start it again to go on from its last checkpoint"
            )

    def stir(self) -> None:
        """Poll more often for a while, because something was sent or received."""
        self._stirred_at = time.monotonic()

    def pause(self) -> None:
        """Wait until the next poll is due."""
        self.check_stopping()
        time.sleep(pause_seconds(time.monotonic() - self._stirred_at, LONGEST_PAUSE))

    def ask(
        self,
        message_type: str,
        request: RecordDict,
        nodes: Nodes,
        deadlines: Mapping[str, float],
        on_reply: OnReply,
    ) -> int:
        """Ask sites and pass each reply on as it arrives, one for every site.

        Args:
            message_type: Flower's message type.
            request: What to send. It is empty afterwards.
            nodes: The sites.
            deadlines: How long to wait for each site, in seconds.
            on_reply: Called once for each site.

        Returns:
            The number of requests sent, repeated ones included.

        Raises:
            StopRequested: The run was asked to stop.
        """
        pending_request = PendingRequest(self, message_type, request)
        try:
            for site, node_id in nodes.items():
                pending_request.add(site, node_id, deadlines[site])
            pending_request.poll(on_reply)  # sends; an immediate answer needs no wait
            while pending_request.pending:
                pending_request.poll(on_reply)
                if pending_request.pending:
                    self.pause()
        finally:
            pending_request.close()
            free_arrays(request)
        return pending_request.sent


@dataclass
class _SiteState:
    """The state of the request to one site."""

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
    """One request to several sites, each until it answers, refuses or is no longer waited for."""

    def __init__(self, poller: SitePoller, message_type: str, request: RecordDict) -> None:
        """Ask no site yet; :meth:`add` names them."""
        self._poller = poller
        self._message_type = message_type
        self._request = request
        self._asks: dict[str, _SiteState] = {}
        self._in_transit = 0
        self.sent = 0

    @property
    def pending(self) -> Collection[str]:
        """The sites whose reply is outstanding."""
        return self._asks.keys()

    def add(self, site: str, node_id: int, deadline_seconds: float) -> None:
        """Ask a site at the next poll at which it is connected."""
        self._asks[site] = _SiteState(node_id, deadline_seconds)

    def drop(self, sites: Iterable[str]) -> None:
        """Stop waiting for some sites."""
        for site in sites:
            self._forget(self._asks.pop(site))

    def close(self) -> None:
        """Stop waiting for all sites."""
        self.drop(list(self._asks))

    def poll(self, on_reply: OnReply) -> None:
        """Check every site once: take its reply, ask it again, or stop waiting for it.

        Raises:
            StopRequested: The run was asked to stop.
        """
        online = self._poller.online()
        for site in sorted(self._asks):
            self._poller.check_stopping()
            self._check(site, online, on_reply)

    def _check(self, site: str, online: Mapping[int, str], on_reply: OnReply) -> None:
        ask = self._asks[site]
        # A reply that has arrived counts even if late: in process, this call produces it.
        reply = self._pull(site, ask)
        if reply is None:
            reply = self._give_up(ask)
        if reply is None:
            self._send(site, ask, online)
            return
        self._poller.stir()
        self.drop([site])
        on_reply(site, reply)
        if reply.content is not None:
            free_arrays(reply.content)

    def _pull(self, site: str, ask: _SiteState) -> SiteReply | None:
        message = self._poller.transport.pull(ask.message_id) if ask.message_id else None
        if message is None:
            return None
        self._set(ask, None)
        if not message.has_error():
            return SiteReply(message.content, seconds=ask.elapsed())
        return self._failure(site, ask, message)

    def _failure(self, site: str, ask: _SiteState, message: Message) -> SiteReply | None:
        """Interpret an error code, never its text; None where the site is to be asked again."""
        code = message.error.code
        if code in LOST:
            self._poller.on_asked_again(site, "its node lost the request")
            return None
        if code != ErrorCode.CLIENT_APP_CRASHED:
            reason = (REFUSAL_CODES | UNREAD).get(code, f"the site failed (Flower error {code})")
            return SiteReply(None, reason, ask.elapsed())
        ask.crashes += 1
        if ask.crashes < MAX_CRASHES:
            self._poller.on_asked_again(site, "its worker died")
            return None
        return SiteReply(None, f"its worker died {counted(ask.crashes, 'time')}", ask.elapsed())

    def _give_up(self, ask: _SiteState) -> SiteReply | None:
        if ask.elapsed() >= ask.deadline_seconds:
            seconds = ask.deadline_seconds if ask.asked else None
            return SiteReply(None, f"no answer within {span(ask.deadline_seconds)}", seconds)
        if self._poller.given_up(ask.node_id):
            return SiteReply(None, f"offline for {span(self._poller.offline_seconds)}")
        return None

    def _send(self, site: str, ask: _SiteState, online: Mapping[int, str]) -> None:
        """Send the request if the site is connected and does not have it."""
        stamp = online.get(ask.node_id)
        if stamp is None:
            return
        if ask.message_id and stamp != ask.stamp:
            self._forget(ask)
            self._poller.on_asked_again(site, "its node restarted")
        now, transport = time.monotonic(), self._poller.transport
        full = self._in_transit >= transport.window
        if ask.message_id or now < ask.again_at or full:
            return
        remaining = ask.deadline_seconds - ask.elapsed() if ask.asked else ask.deadline_seconds
        self._set(ask, transport.push(ask.node_id, self._message_type, self._request, remaining))
        ask.stamp, ask.again_at = stamp, now + AGAIN_SECONDS
        if ask.message_id:
            self._poller.stir()
            self.sent += 1
            ask.since, ask.asked = (ask.since if ask.asked else now), True

    def _forget(self, ask: _SiteState) -> None:
        if ask.message_id:
            self._poller.transport.forget([ask.message_id])
        self._set(ask, None)

    def _set(self, ask: _SiteState, message_id: str | None) -> None:
        """Record which request to a site is in transit."""
        self._in_transit += bool(message_id) - bool(ask.message_id)
        ask.message_id = message_id
