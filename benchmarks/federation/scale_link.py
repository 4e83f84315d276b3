"""Measure the load of more sites on a coordinator's port: polls, handshakes, waiting requests.

Usage: python -m benchmarks.federation.scale_link [--sites 10 100 1000]

A waiting site polls at most every 2 s over a persistent connection. Measured are the server's
processor time for one poll and for one new connection (mutual TLS 1.3 and a request), and the time
that Flower's state (1.41-1.42) needs for one poll while ``N`` requests wait, all of which it scans.
The latter grows with N, so the cost of all polls grows with its square. Together these give the
number of sites that one process, limited by Python to about one core, can serve. There is no peer.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mamfed_common.runtime import terminal

terminal.set_environment()

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: E402
from flwr.app import ConfigRecord, RecordDict  # noqa: E402
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID  # noqa: E402
from flwr.supernode import fleet_http_connection  # noqa: E402

from mamfed_client.node.connection import Connection, fleet_client, tls_context  # noqa: E402
from mamfed_client.node.supernode import LONGEST_POLL  # noqa: E402
from mamfed_client.site.settings import SiteHome  # noqa: E402
from mamfed_common.security.enrolment import read_welcome  # noqa: E402
from mamfed_common.security.keys import read_key  # noqa: E402
from mamfed_server.fleet.link_transport import LinkTransport  # noqa: E402
from mamfed_server.fleet.superlink import SuperLink  # noqa: E402

POLLS, CONNECTIONS, LOOKS = 400, 200, 20


def be_a_site(home: SiteHome) -> None:
    """Act as the client in a separate process: poll, then open new connections repeatedly."""
    import httpx

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


def look_seconds(sites: int) -> float:
    """Return the seconds of one poll in Flower's state while ``sites`` requests wait."""
    link = SuperLink()
    transport, nodes = LinkTransport(link), []
    for _ in range(sites):
        key = secrets.token_bytes(32)
        nodes.append(link.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 1e9))
        link.state.activate_node(nodes[-1], 1e9)
        content = RecordDict({"body": ConfigRecord({"json": "{}"})})
        transport.push(nodes[-1], "train", content, 3600)
    for node in nodes:
        link.state.get_message_ins(node, limit=1)
    started = time.perf_counter()
    for node in nodes[:LOOKS]:  # whose request is out: they look for another one
        link.state.get_message_ins(node, limit=1)
    seconds = (time.perf_counter() - started) / min(LOOKS, sites)
    link.close()
    return seconds


def show(sites: Sequence[int]) -> None:
    poll, connection = port_seconds()
    print(f"a poll {1000 * poll:.2f} ms, a new connection {1000 * connection:.2f} ms of the server")
    looks = {count: look_seconds(count) for count in sites}
    for count, seconds in looks.items():
        print(f"{count:6} requests wait: a poll looks for {1000 * seconds:.3f} ms", flush=True)
    each = looks[max(looks)] / max(looks)
    # Of N sites half are at work and do not poll; each of the others looks through their requests.
    half = (-poll + (poll**2 + 4 * each * LONGEST_POLL) ** 0.5) / (2 * each)
    print(
        f"with a poll every {LONGEST_POLL:g} s one core is full at {LONGEST_POLL / poll:.0f} sites "
        f"that all wait, at {2 * half:.0f} of which half are at work"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--site", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.site:
        be_a_site(SiteHome(given.site))
    else:
        show(given.sites)


if __name__ == "__main__":
    main()
