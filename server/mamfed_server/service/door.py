"""The coordinator's door: what listens for sites, checks them, and passes their messages on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mamfed_server.admission.certificate_authority import load_plan_key
from mamfed_server.admission.registry import Registry
from mamfed_server.fleet.countersigning import AUDIT_HEADS, Countersigner
from mamfed_server.fleet.listener import TlsListener
from mamfed_server.fleet.request_guard import Limits, OnContact, RequestGuard
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.closing_message import ClosingMessage
from mamfed_server.settings import ServerHome, ServerSettings


class Door(NamedTuple):
    """The parts of a door; ``close`` both when it is no longer needed."""

    link: SuperLink
    listener: TlsListener

    def close(self) -> None:
        """End the messages' traffic, then the listener."""
        self.link.close()
        self.listener.stop()


def build_door(
    home: ServerHome,
    settings: ServerSettings,
    registry: Registry,
    limits: Limits,
    *,
    on_contact: OnContact = lambda site, instance, address: None,
    on_rewritten: Callable[[str], None] = lambda site: None,
    closing: ClosingMessage | None = None,
) -> Door:
    """Build a door for the sites of a registry; it opens with ``listener.start()``.

    Args:
        home: The coordinator's home: keys, certificates and the heads of the sites' audit logs.
        settings: Say where to listen.
        registry: The sites that may come in.
        limits: Limits of their requests.
        on_contact: See :class:`RequestGuard`.
        on_rewritten: Called with a site whose audit log was written anew.
        closing: Adds the run's state to each response; None: nothing is added.
    """
    link = SuperLink(limits.answer_bytes)
    signer = Countersigner(home.path / AUDIT_HEADS, load_plan_key(home), on_rewritten)
    guard = RequestGuard(link, registry, limits, on_contact, closing, signer)
    listener = TlsListener(
        guard,
        settings.bind,
        settings.port,
        ca=home.ca,
        certificate=home.server_certificate,
        key=home.server_key,
        limits=limits,
        known=registry,
    )
    return Door(link, listener)
