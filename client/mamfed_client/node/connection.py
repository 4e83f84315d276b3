"""A site's line to the coordinator: TLS with its certificate, what failed in words, contact kept.

Flower's own client gives up for ever on any error whose text holds "ssl" or "certificate", and then
lives on as a silent zombie (Flower 1.41-1.42). Here every failure of the line is one that it tries
again.
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
from cryptography.hazmat.primitives.serialization import Encoding
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.supercore.error import FlowerError
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient

from mamfed_client.node.connection_errors import causes, explain
from mamfed_client.node.proxies import check_proxy
from mamfed_client.site.certificate import site_certificate
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import OUTCOMES, REFUSED, STARTS_OVER, RunEnding, State
from mamfed_common import __version__
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.protocol.versions import INSTANCE_HEADER, MAMFED_HEADER, RUN_HEADER
from mamfed_common.security.certificates import check_validity, pair_reason, read_certificate

logger = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")

OTHER_VERSION = LinkError.exit_code

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0


def tls_context(home: SiteHome) -> ssl.SSLContext:
    """Return TLS 1.3 that trusts the federation's authority alone and shows the site's certificate.

    Raises:
        SetupError: A file is missing or damaged, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority = read_certificate(home.ca)
    try:
        context.load_verify_locations(cadata=authority.public_bytes(Encoding.DER))
        context.load_cert_chain(home.certificate, home.tls_key)
    except OSError as error:
        reason = pair_reason(home.certs, error)
        raise SetupError(
            f"{home.certs}: this site's certificate cannot be used ({reason}); mamfed-client join "
            "the newest welcome"
        ) from None
    return context


@dataclass
class Connection:
    """What is known of the line to the coordinator.

    Attributes:
        home: The site.
        server: The coordinator's ``host:port``.
        end: Ends the process with an exit code.
        instance: Drawn by this process, see ``versions.INSTANCE_HEADER``.
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
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> None:
        """Take note of an answer."""
        if self.error:
            logger.info("%s answers again", self.server)
        self.state, self.error = "training" if self.busy else "online", ""
        self.last_contact, self.contact_at = datetime.now(UTC), monotonic()
        self.attempt_at = self.contact_at

    def hear_of_run(self, header: str) -> None:
        """Take note of whether the run goes on or how it ended, see ``versions.RUN_HEADER``."""
        how, _, name = header.partition(" ")
        run = "".join(c for c in unquote(name) if c.isprintable())[:64]
        if how not in OUTCOMES:
            self.ended = None
        elif self.ended is None or (self.ended.how, self.ended.run) != (how, run):
            self.ended = RunEnding(run=run, how=how, model=model_of(self.home, run))
            logger.info("%s", self.ended.words())

    def failed(self, error: BaseException) -> None:
        """Take note of a failure."""
        words = self._own_trouble() or explain(error, self.server)
        if words != self.error:
            logger.warning("%s", words)
        self.state, self.error, self.attempt_at = "unreachable", words, monotonic()

    def _own_trouble(self) -> str:
        """Say what is wrong with this site's certificate: a server only closes the line for it."""
        try:
            now = datetime.now(UTC)
            check_validity(site_certificate(self.home), now, "this site's certificate")
        except SetupError as error:
            return str(error)
        return ""

    def start_over(self, why: str) -> None:
        """End the process so that its supervisor starts it again."""
        logger.error("%s: starting over", why)
        self.error = f"{self.server}: {why}"
        self.end(STARTS_OVER)

    def refused(self, code: int, why: str) -> None:
        """End the process as not taken in."""
        self.state, self.error = "refused", f"{self.server}: {why}"
        logger.error("%s", self.error)
        self.end(code)

    def files_changed(self) -> bool:
        """Tell whether the certificate was renewed since the last call."""
        try:
            found = self.home.certificate.stat()
        except OSError:
            return False
        stamp, before = (found.st_mtime_ns, found.st_ino), self.stamp
        self.stamp = stamp
        return stamp != before


def model_of(home: SiteHome, run: str) -> str:
    """Return where a run's final model lies in a site's home; empty where none came.

    Where several plans ran under one name, it is the newest.
    """
    found = list(home.models.glob(f"{glob.escape(run)}-*/shared.safetensors"))
    return str(max(found, key=lambda path: path.stat().st_mtime_ns)) if found else ""


def fleet_client(link: Connection) -> type[FleetHttpClient]:
    """Return the class to put in the place of Flower's ``FleetHttpClient``."""

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
            """Ask for a message; renew the connection where the certificate is new."""
            link.busy = False
            if link.files_changed():
                self._renew()
            response = _once(link, super().PullMessages, request)
            if response.messages_list:
                link.busy, link.message_at = True, monotonic()
            return response

        def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:
            """Announce an answer."""
            link.message_at = monotonic()
            return _once(link, super().PushMessages, request)

        def _renew(self) -> None:
            # Heartbeats come from another thread: the old client ends with its last request.
            link.files_changed()
            self._client = httpx.Client(
                verify=tls_context(link.home),
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=False,
            )

    return LinkedFleetClient


class _Contact:
    """Names this mamfed to the server, and takes note of what comes back."""

    def __init__(self, link: Connection) -> None:
        self._link = link

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[MAMFED_HEADER] = __version__
        context.request.headers[INSTANCE_HEADER] = self._link.instance
        try:
            response = call_next(context)
        except httpx.TransportError as error:
            self._link.failed(error)
            raise _harmless(error) from error
        self._look(response)
        return response

    def _look(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.UPGRADE_REQUIRED:
            self._link.refused(OTHER_VERSION, detail_of(response, "another version is asked for"))
        elif response.status_code == httpx.codes.FORBIDDEN and not _is_flowers(response):
            self._link.refused(REFUSED, detail_of(response, "this site is not let in"))
        elif response.status_code == httpx.codes.UNAUTHORIZED:
            # After a restart the coordinator knows no node of before: a new start makes it known.
            self._link.start_over("it does not know this node, or the clocks differ")
        elif response.is_success:
            self._link.answered()
            self._link.hear_of_run(response.headers.get(RUN_HEADER, ""))
        elif not _is_flowers(response):
            logger.error("%d: %s", response.status_code, detail_of(response, "no reason given"))


def _once(link: Connection, call: Callable[[Request], Response], request: Request) -> Response:
    """Call what must not be tried again where its answer was lost.

    A message that the server has handed out, or taken in, is not so twice: it would be waited for
    until the round's deadline. A node that starts over is asked again.
    """
    try:
        return call(request)
    except httpx.ReadError:
        link.start_over("an answer was lost on the way")
        raise


def _harmless(error: httpx.TransportError) -> httpx.TransportError:
    """Return what Flower tries again after: a ReadError where the server may have acted."""
    lost = isinstance(error, httpx.ReadTimeout | httpx.ReadError | httpx.RemoteProtocolError)
    in_tls = any(isinstance(cause, ssl.SSLError) for cause in causes(error))
    kind = httpx.ReadError if lost and not in_tls else httpx.ConnectError
    return kind("the line failed")


def _is_flowers(response: httpx.Response) -> bool:
    """Tell Flower's own 403, "the run is over", from the coordinator's."""
    return FlowerError.from_json(response.text) is not None


def detail_of(response: httpx.Response, otherwise: str) -> str:
    """Return what the coordinator says of a refusal, made fit for a screen."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return otherwise
    return "".join(c if c.isprintable() else " " for c in detail)[:300]
