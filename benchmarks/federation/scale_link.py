"""Measure the load of a site on a coordinator's port: a poll, and a handshake.

Usage: python -m benchmarks.federation.scale_link

A waiting site polls every 22 s over a persistent connection. Measured are the server's processor
time for one poll, which does not wait here, and for one new connection (mutual TLS 1.3 and a
request). They give the number of sites that one process, limited by Python to about one core, can
serve; ``waiting_sites`` measures it with all of them. There is no peer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mamfed_common.runtime import terminal

terminal.set_environment()

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: E402
from flwr.supernode import fleet_http_connection  # noqa: E402

from mamfed_client.node import connection  # noqa: E402
from mamfed_client.node.connection import (  # noqa: E402
    WAIT_SECONDS,
    Connection,
    fleet_client,
    tls_context,
)
from mamfed_client.node.supernode import LONGEST_POLL  # noqa: E402
from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.security.enrolment import read_welcome  # noqa: E402
from mamfed_common.security.keys import read_key  # noqa: E402

POLLS, CONNECTIONS = 400, 200


def be_a_site(home: SiteHome) -> None:
    """Act as the client in a separate process: poll, then open new connections repeatedly."""
    import httpx

    connection.WAIT_SECONDS = 0
    server, key = (
        read_welcome(home.welcome).server,
        read_key(home.node_key, EllipticCurvePrivateKey),
    )
    fleet_http_connection.FleetHttpClient = fleet_client(Connection(home, server, sys.exit))
    with fleet_http_connection.http_request_response(
        server, False, home.ca.read_bytes(), (key, key.public_key())
    ) as calls:
        print("ready", flush=True)
        input()
        for _ in range(POLLS):
            calls[1]()
        print("polled", flush=True)
        input()
        for _ in range(CONNECTIONS):
            with httpx.Client(verify=tls_context(home)) as client:
                client.get(f"https://{server}/health")
        print("connected", flush=True)
        input()


def port_seconds() -> tuple[float, float]:
    """Return the server's processor seconds per poll and per new connection."""
    from tests.unit.client.loopback import Coordinator

    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(Path(folder) / "server")
        home = coordinator.enrol(Path(folder) / "site")
        site = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--site", str(home.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert site.stdin is not None
        assert site.stdout is not None
        marks = []
        for word in ("ready", "polled", "connected"):
            assert site.stdout.readline().strip() == word
            marks.append(time.process_time())
            site.stdin.write("\n")
            site.stdin.flush()
        site.wait(30)
        coordinator.close()
    return (marks[1] - marks[0]) / POLLS, (marks[2] - marks[1]) / CONNECTIONS


def show() -> None:
    poll, connection = port_seconds()
    period = WAIT_SECONDS + LONGEST_POLL
    print(f"a poll {1000 * poll:.2f} ms, a new connection {1000 * connection:.2f} ms of the server")
    print(f"with a poll every {period:g} s one core is full at {period / poll:.0f} waiting sites")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.site:
        be_a_site(SiteHome(given.site))
    else:
        show()


if __name__ == "__main__":
    main()
