"""A federation over bad lines: resets in the middle of a transfer, a slow line, a black hole.

Each hospital of one run has a line of its own to the coordinator, and the run ends with the bits of
a simulation. The third one's line is a firewall's proxy, behind which alone the coordinator's name
is known: what arrives there went through the proxy, and the rest did not.
"""

from __future__ import annotations

import socket

import pytest
from tests.processes.bad_line import Line, send_over
from tests.processes.deployment import Deployment, simulated_sha256, wait_until
from tests.processes.phantoms import small_plan

RESETS = 1
"""In either direction."""
SLOW_BYTES_SECOND = 60_000
HOLE_SECONDS = 5.0
UNKNOWN_HERE = "coordinator.invalid"
"""RFC 2606: a name that no name server knows."""


class ConnectProxy(Line):
    """An HTTP proxy that knows CONNECT alone (RFC 9110, 9.3.6), and the coordinator's name.

    Attributes:
        asked: The first line of each request.
    """

    def __init__(self, port: int) -> None:
        """Begin to listen.

        Args:
            port: Where the coordinator listens.
        """
        self.asked: list[str] = []
        super().__init__(port)

    def _reach(self, site: socket.socket) -> socket.socket:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := site.recv(4096)):
                raise ConnectionError
            head += data
        line = head.partition(b"\r\n")[0].decode()
        self.asked.append(line)
        if not line.startswith(f"CONNECT {UNKNOWN_HERE}:{self._target} "):
            site.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            raise ConnectionError
        server = super()._reach(site)
        site.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return server


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan of two rounds, alone in its folder."""
    plan = tmp_path_factory.mktemp("network") / "plan.yaml"
    plan.write_text(small_plan(pretraining=1, finetuning=1).to_yaml())
    return plan


def name_the_coordinator(federation, host):
    """Give the coordinator another name, and a certificate for it."""
    path = federation.server_home / "server.yaml"
    path.write_text(path.read_text().replace("[127.0.0.1]", f"[127.0.0.1, {host}]"))
    done = federation.command("mamfed-server", "sites", "rotate", "--home", federation.server_home)
    assert host in done.stdout


@pytest.fixture(scope="module")
def weathered(phantoms, planned):
    """A run that has ended, its lines by site, and the proxy's environment."""
    with Deployment(planned.parent, phantoms) as federation:
        port = federation.port
        broken, slow = (
            Line(port, resets=RESETS),
            Line(port, bytes_per_second=SLOW_BYTES_SECOND),
        )
        proxy = ConnectProxy(port)
        lines = dict(zip(phantoms, (broken, slow, proxy), strict=True))
        name_the_coordinator(federation, UNKNOWN_HERE)
        federation.start_server(planned)
        for name, line in lines.items():
            behind = line is proxy
            address = f"{UNKNOWN_HERE}:{port}" if behind else f"127.0.0.1:{line.port}"
            send_over(federation, name, address)
            start_behind(federation, name, proxy if behind else None)
        wait_until(lambda: bool(federation.rounds()), "the first round ends")
        proxy.swallow(HOLE_SECONDS)
        assert federation.wait_for_end() == 0, federation.story()
        yield federation, lines
        for line in lines.values():
            line.close()


def start_behind(federation, name, proxy):
    """Start a site, as in a hospital that sets its proxy for all programs."""
    if proxy is None:
        federation.start_site(name)
        return
    plain = federation.environment
    url = f"http://127.0.0.1:{proxy.port}"
    without = {k: v for k, v in plain.items() if k.lower() != "no_proxy"}
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")
    federation.environment = {**without, **dict.fromkeys(names, url)}
    federation.start_site(name)
    federation.environment = plain


def test_the_weights_are_those_of_a_simulation_whatever_the_line(weathered, planned, phantoms):
    federation, _ = weathered
    assert federation.weights_sha256() == simulated_sha256(federation.folder, planned, phantoms)


def test_no_site_was_left_out_of_a_round_for_its_line(weathered, phantoms):
    federation, _ = weathered
    assert [list(record["accepted"]) for record in federation.rounds()] == [sorted(phantoms)] * 2


def test_transfers_of_the_model_were_broken_off_both_ways(weathered, phantoms):
    _, lines = weathered
    broken = lines[next(iter(phantoms))]
    assert broken.resets == {"up": RESETS, "down": RESETS}


def test_the_coordinator_is_reached_through_the_proxy_and_the_worker_is_not(weathered):
    federation, lines = weathered
    proxy = next(line for line in lines.values() if isinstance(line, ConnectProxy))
    assert proxy.asked
    assert {line.split()[1] for line in proxy.asked} == {f"{UNKNOWN_HERE}:{federation.port}"}
    assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}


def test_a_broken_line_leaves_one_line_a_failure_in_the_log(weathered):
    federation, _ = weathered
    logs = list(federation.folder.glob("**/logs/*.log"))
    assert len(logs) >= 5
    assert not [log for log in logs if "Traceback" in log.read_text()]
