"""A site's connection to the coordinator: TLS with its certificate, explained failures, retries.

Flower's own client gives up for good on any error whose text contains "ssl" or "certificate", but
its process lives on without a connection (Flower 1.41-1.42). Here Flower sees every failed
connection as an error that it retries.
"""

from __future__ import annotations

import glob
import logging
import secrets
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import unquote

import httpx

from mamfed_client.disclosure.countersignatures import Countersignatures
from mamfed_client.node.connection_errors import causes, explain
from mamfed_client.node.flower_compat import (
    FleetHttpClient,
    FlowerError,
    ProtobufCall,
    ProtobufRequestContext,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    SendNodeHeartbeatRequest,
    SendNodeHeartbeatResponse,
)
from mamfed_client.node.proxies import check_proxy
from mamfed_client.node.server_tls import detail_of, tls_context
from mamfed_client.site.certificate import site_certificate
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import OUTCOMES, REFUSED, STARTS_OVER, RunEnding, State
from mamfed_common import __version__
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.protocol.versions import (
    AUDIT_HEAD_HEADER,
    AUDIT_SEAL_HEADER,
    INSTANCE_HEADER,
    LEASE_HEADER,
    MAMFED_HEADER,
    RUN_HEADER,
    WAIT_HEADER,
)
from mamfed_common.security.certificates import check_validity

logger = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")

OTHER_VERSION = LinkError.exit_code

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
WAIT_SECONDS = 20
"""How long a poll may wait at the coordinator: less than ANSWER_SECONDS, and than proxies allow."""
HEARTBEAT_SECONDS = 25.0
"""Flower sends a heartbeat at least so often; one is left out while the lease lasts longer."""
LEASE_DIGITS = 4


@dataclass
class Connection:
    """The state of the connection to the coordinator.

    Attributes:
        home: The site's home.
        server: The coordinator's ``host:port``.
        end: Ends the process with an exit code.
        instance: Random name of this process, see ``versions.INSTANCE_HEADER``.
        seals: Collects the coordinator's signatures over the audit log.
    """

    home: SiteHome
    server: str
    end: Callable[[int], None]
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "connecting"
    error: str = ""
    last_contact: datetime | None = None
    contact_at: float = field(default_factory=monotonic)
    attempt_at: float = field(default_factory=monotonic)
    message_at: float = float("-inf")
    busy: bool = False
    stamp: tuple[int, int] = (0, 0)
    ended: RunEnding | None = None
    leased_until: float = float("-inf")
    is_offered_again: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    seals: Countersignatures | None = None

    def answered(self) -> None:
        """Record an answer."""
        if self.error:
            logger.info("%s answers again", self.server)
        self.state, self.error = "training" if self.busy else "online", ""
        self.last_contact, self.contact_at = datetime.now(UTC), monotonic()
        self.attempt_at = self.contact_at

    def waits(self) -> None:
        """Record that the site waits for a message: its poll may be answered much later."""
        self.busy = False
        if self.state == "training":
            self.state = "online"

    def hear_of_lease(self, header: str) -> None:
        """Record for how long the node needs no heartbeat, see ``versions.LEASE_HEADER``.

        A coordinator that sends it also offers a message again if the answer to a poll was lost.
        """
        if header.isdecimal() and len(header) <= LEASE_DIGITS:
            self.is_offered_again = True
            self.leased_until = monotonic() + int(header)

    def hear_of_run(self, header: str) -> None:
        """Record whether the run continues or how it ended, see ``versions.RUN_HEADER``."""
        how, _, name = header.partition(" ")
        run = "".join(c for c in unquote(name) if c.isprintable())[:64]
        if how not in OUTCOMES:
            self.ended = None
        elif self.ended is None or (self.ended.how, self.ended.run) != (how, run):
            self.ended = RunEnding(run=run, how=how, model=model_of(self.home, run))
            logger.info("%s", self.ended.words())

    def failed(self, error: BaseException) -> None:
        """Record a failure."""
        words = self._certificate_problem() or explain(error, self.server)
        if words != self.error:
            logger.warning("%s", words)
        self.state, self.error, self.attempt_at = "unreachable", words, monotonic()

    def _certificate_problem(self) -> str:
        """Return what is wrong with this site's certificate; the server does not say it."""
        try:
            now = datetime.now(UTC)
            check_validity(site_certificate(self.home), now, "this site's certificate")
        except SetupError as error:
            return str(error)
        return ""

    def start_over(self, why: str) -> None:
        """End the process so that its supervisor restarts it."""
        logger.error("%s: restarting", why)
        self.error = f"{self.server}: {why}"
        self.end(STARTS_OVER)

    def refused(self, code: int, why: str) -> None:
        """End the process because the coordinator refused it."""
        self.state, self.error = "refused", f"{self.server}: {why}"
        logger.error("%s", self.error)
        self.end(code)

    def files_changed(self) -> bool:
        """Return whether the certificate was renewed since the last call."""
        try:
            status = self.home.certificate.stat()
        except OSError:
            return False
        stamp, before = (status.st_mtime_ns, status.st_ino), self.stamp
        self.stamp = stamp
        return stamp != before


def model_of(home: SiteHome, run: str) -> str:
    """Return the path of a run's final model in a site's home; empty if none arrived.

    If several plans ran under one name, it is the newest model.
    """
    paths = list(home.models.glob(f"{glob.escape(run)}-*/shared.safetensors"))
    return str(max(paths, key=lambda path: path.stat().st_mtime_ns)) if paths else ""


def fleet_client(link: Connection) -> type[FleetHttpClient]:
    """Return the class that replaces Flower's ``FleetHttpClient``."""

    class LinkedFleetClient(FleetHttpClient):
        """Flower's Fleet client over this site's TLS."""

        def __init__(
            self, base_url: str, *, interceptors: Sequence[Any] = (), **settings: Any
        ) -> None:
            check_proxy(link.server)
            settings["verify"] = tls_context(link.home)
            super().__init__(base_url, interceptors=[_Contact(link), *interceptors], **settings)
            self._renew()

        def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:
            """Ask for a message; reconnect first if the certificate is new."""
            link.waits()
            if link.files_changed():
                self._renew()
            if link.is_offered_again:
                response = super().PullMessages(request)
            else:
                response = _once(link, super().PullMessages, request)
            if response.messages_list:
                link.busy, link.message_at = True, monotonic()
            return response

        def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:
            """Announce an answer."""
            link.message_at = monotonic()
            return _once(link, super().PushMessages, request)

        def SendNodeHeartbeat(self, request: SendNodeHeartbeatRequest) -> SendNodeHeartbeatResponse:
            """Send a sign of life, unless a poll was one."""
            if link.leased_until - monotonic() > HEARTBEAT_SECONDS:
                return SendNodeHeartbeatResponse(success=True)
            return super().SendNodeHeartbeat(request)

        def _renew(self) -> None:
            # Heartbeats run in another thread, so the old client is left to finish its request.
            link.files_changed()
            self._client = httpx.Client(
                verify=tls_context(link.home),
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=False,
            )

    return LinkedFleetClient


class _Contact:
    """Sends this mamfed's version to the server, and records the responses."""

    def __init__(self, link: Connection) -> None:
        self._link = link

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[MAMFED_HEADER] = __version__
        context.request.headers[INSTANCE_HEADER] = self._link.instance
        if isinstance(context.message, PullMessagesRequest):
            context.request.headers[WAIT_HEADER] = f"wait={WAIT_SECONDS}"
        if self._link.seals and (head := self._link.seals.header()):
            context.request.headers[AUDIT_HEAD_HEADER] = head
        try:
            response = call_next(context)
        except httpx.TransportError as error:
            self._link.failed(error)
            raise _harmless(error) from error
        self._look(response)
        return response

    def _look(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.UPGRADE_REQUIRED:
            self._link.refused(OTHER_VERSION, detail_of(response, "another version is required"))
        elif response.status_code == httpx.codes.FORBIDDEN and not _is_flowers(response):
            self._link.refused(REFUSED, detail_of(response, "this site is not accepted"))
        elif response.status_code == httpx.codes.UNAUTHORIZED:
            # A restarted coordinator knows no earlier nodes; a restart registers this one again.
            self._link.start_over("it does not know this node, or the clocks differ")
        elif response.is_success:
            self._link.answered()
            self._link.hear_of_run(response.headers.get(RUN_HEADER, ""))
            self._link.hear_of_lease(response.headers.get(LEASE_HEADER, ""))
            if self._link.seals and (seal := response.headers.get(AUDIT_SEAL_HEADER)):
                self._link.seals.keep(seal)
        elif not _is_flowers(response):
            logger.error("%d: %s", response.status_code, detail_of(response, "no reason given"))


def _once(link: Connection, call: Callable[[Request], Response], request: Request) -> Response:
    """Make a call that must not be repeated if its answer was lost.

    The server hands out or accepts a message only once, and would wait for a lost one until the
    round's deadline. A node that restarts is asked again.
    """
    try:
        return call(request)
    except httpx.ReadError:
        link.start_over("an answer was lost in transit")
        raise


def _harmless(error: httpx.TransportError) -> httpx.TransportError:
    """Return an error after which Flower retries: a ReadError if the server may have acted."""
    lost = isinstance(error, httpx.ReadTimeout | httpx.ReadError | httpx.RemoteProtocolError)
    in_tls = any(isinstance(cause, ssl.SSLError) for cause in causes(error))
    kind = httpx.ReadError if lost and not in_tls else httpx.ConnectError
    return kind("the connection failed")


def _is_flowers(response: httpx.Response) -> bool:
    """Return whether a 403 is Flower's own, "the run is over", and not the coordinator's."""
    return FlowerError.from_json(response.text) is not None
