"""``python -m mamfed_client.node.supernode HOME``: the process that talks to the coordinator.

It is Flower's SuperNode with outbound connections only. Its worker is a process of our own
(``executor.py``) that connects to it on 127.0.0.1 with a secret drawn at each start. The following
parts of Flower are replaced before it runs (``flower_compat.py``):

* its HTTP client, which gets this site's TLS (``connection.py``);
* its pauses, which get shorter: it sleeps 3 s between polls, longer than a whole round may take,
  and 1 s while a part of a message is in transit.

A watchdog ends the process if it goes silent, and the supervisor restarts it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import MappingProxyType, SimpleNamespace
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from mamfed_client.disclosure.active_policy import read_active_policy
from mamfed_client.disclosure.countersignatures import Countersignatures
from mamfed_client.node.connection import Connection, fleet_client
from mamfed_client.node.flower_compat import (
    NodeStates,
    check_flower_parts,
    create_app,
    replace_clock,
    replace_fleet_client,
    set_node_arrival,
    start_log,
    start_node,
)
from mamfed_client.node.server_tls import tls_context
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import STARTS_OVER, read_status, update_status
from mamfed_common.errors import MamfedError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import os_error_line, write_atomic
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.runtime.polling import pause_seconds
from mamfed_common.runtime.wording import span
from mamfed_common.security.enrolment import read_welcome
from mamfed_common.security.keys import read_key

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 90.0
"""A node restarts after this time without any attempt to connect: three of Flower's heartbeats."""
LONELY_TIMES = 10
"""An idle node restarts after this multiple of SILENCE_SECONDS without contact."""
SHORTEST_POLL, LONGEST_POLL = 0.05, 2.0
"""Pauses in seconds between polls for a message."""
LONGEST_REPLY_PAUSE = 0.5
ARRIVAL: Mapping[str, Any] = MappingProxyType(
    {"initial_backoff": 0.02, "backoff_cap": 1.0, "max_tries_per_object": None}
)
"""Pauses while a part of a message is in transit; Flower's grow from 1 s to 10 s."""
STATUS_SECONDS = 1.0
CONTACT_SECONDS = 10.0
"""How often ``last_contact`` in the status is updated while nothing else changes."""

RUNTIME_FILE = "runtime.json"
"""File in a site's home with the node's port and the secret for its worker."""


class PollingClock:
    """Replaces ``time`` in Flower's main loop, which only uses it to sleep.

    Flower waits 3 s after an empty poll and 0.5 s for the worker's reply. With two messages per
    round, these waits alone take longer than a short round. Here a pause is a tenth of the time
    since the last message: 2 s after weeks without a run, 0.05 s when the next message is near.
    """

    def __init__(self, link: Connection) -> None:
        """Derive the pauses from the messages on this connection."""
        self._link = link

    def sleep(self, seconds: float) -> None:
        """Sleep for a pause that suits the traffic, instead of ``seconds``."""
        waited = monotonic() - self._link.message_at
        if seconds < 1:
            time.sleep(pause_seconds(waited, LONGEST_REPLY_PAUSE))
        else:
            time.sleep(pause_seconds(waited, LONGEST_POLL, SHORTEST_POLL))

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to ``time``."""
        return getattr(time, name)


class Watchdog:
    """Writes the status, and ends a node that has gone silent."""

    def __init__(self, link: Connection, silence_seconds: float = SILENCE_SECONDS) -> None:
        """Watch a connection."""
        self._link = link
        self._silence_seconds = silence_seconds
        self._lonely_seconds = LONELY_TIMES * silence_seconds
        self._told: tuple[object, ...] = ()
        self._told_at = float("-inf")

    def run(self) -> None:
        """Watch until the process ends."""
        pause = min(STATUS_SECONDS, self._silence_seconds / 4)
        while True:
            self.tell()
            if self.is_silent():
                self._link.start_over(f"silent for {span(self._quiet_seconds())}")
            time.sleep(pause)

    def is_silent(self) -> bool:
        """Return whether the node must be restarted.

        It must if it no longer tries to connect. While it tries, a busy node keeps working even if
        the server is away for an hour, and an idle one is restarted rarely, because loading torch
        every 90 s would be wasteful.
        """
        idle_seconds = monotonic() - self._link.attempt_at
        lonely = not self._link.busy and self._quiet_seconds() > self._lonely_seconds
        return idle_seconds > self._silence_seconds or lonely

    def _quiet_seconds(self) -> float:
        return monotonic() - self._link.contact_at

    def tell(self) -> None:
        """Write the status if it changed or the time of contact is old."""
        link = self._link
        now = (link.state, link.error, link.ended)
        if now == self._told and monotonic() - self._told_at < CONTACT_SECONDS:
            return
        self._told, self._told_at = now, monotonic()
        update_status(
            link.home,
            state=link.state,
            error=link.error,
            ended=link.ended,
            last_contact=link.last_contact,
            server=link.server,
            node_pid=os.getpid(),
        )


def run_node(home: SiteHome, silence_seconds: float = SILENCE_SECONDS) -> None:
    """Run the node until it is stopped or must be restarted.

    Args:
        home: The site's home, enrolled and joined.
        silence_seconds: Seconds without an attempt to connect after which to restart.

    Raises:
        SetupError: Keys, certificate or welcome cannot be used, or Flower has changed.
    """
    check_flower_parts()
    welcome = read_welcome(home.welcome)
    key = read_key(home.node_key, EllipticCurvePrivateKey)
    link = Connection(home, welcome.server, lambda code: _end(link, code))
    link.ended = read_status(home).ended
    link.seals = Countersignatures(
        home.audit, welcome.site, lambda: read_active_policy(home).trusted_keys
    )
    tls_context(home)
    watchdog = Watchdog(link, silence_seconds)
    threading.Thread(target=watchdog.run, name="watchdog", daemon=True).start()
    replace_fleet_client(fleet_client(link))
    replace_clock(PollingClock(link))
    set_node_arrival(ARRIVAL)
    _run_flower(home, link, key)
    link.start_over("Flower's loop ended")


def serve_worker(home: SiteHome, states: NodeStates) -> SimpleNamespace:
    """Serve the worker's API on a free port of 127.0.0.1; return ``port`` and ``secret``."""
    secret = secrets.token_bytes(32)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(state_factory=states, superexec_auth_secret=secret)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],), name="runtime", daemon=True)
    thread.start()
    text = json.dumps({"port": port, "secret": secret.hex(), "pid": os.getpid()})
    write_atomic(home.path / RUNTIME_FILE, text)
    return SimpleNamespace(port=port, secret=secret)


def _run_flower(home: SiteHome, link: Connection, key: EllipticCurvePrivateKey) -> None:
    states = NodeStates()
    runtime = serve_worker(home, states)
    start_node(
        state_factory=states,
        server_address=link.server,
        node_config={},
        root_certificates=read_bytes(home.ca, KEY_BYTES),
        insecure=False,
        authentication_keys=(key, key.public_key()),
        isolation="process",
        runtime_api_address=f"127.0.0.1:{runtime.port}",
        superexec_auth_secret=runtime.secret,
        runtime_dependency_install=False,
    )


def _end(link: Connection, code: int) -> None:
    """End the process at once from any thread: Flower's main thread may hang in a call."""
    update_status(link.home, state=link.state, error=link.error)
    logging.shutdown()
    os._exit(code)


def main() -> None:
    """Run the node of the home given on the command line."""
    hold_lifeline()
    start_log()
    home = SiteHome(Path(sys.argv[1]).resolve())
    try:
        run_node(home)
    except MamfedError as error:
        logger.error("%s", error)
        update_status(home, error=str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        logger.error("%s", os_error_line(error))
        update_status(home, error=os_error_line(error))
        sys.exit(STARTS_OVER)
    except SystemExit as ended:
        # Flower exits with 0 after a signal; if it gave up, a restart may succeed.
        sys.exit(STARTS_OVER if ended.code else 0)


if __name__ == "__main__":
    main()
