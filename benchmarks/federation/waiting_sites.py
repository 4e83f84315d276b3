"""Measure what waiting sites cost a coordinator: real sockets, real polls, this process's CPU time.

Usage: python -m benchmarks.federation.waiting_sites [--sites 500 2000] [--seconds 44]

The coordinator is the listener, guard and SuperLink of ``mamfed-server start``, in this process.
The sites are in another one: each has its own certificate, node key and TLS connection, polls as a
site's node does (``supernode.py``), and pauses as long between polls as a node that has waited for
long. Once nearly all polls are held they are counted every second: a count below that says that
requests wait for a processor, here or at the sites, and then the share of a core says nothing.
Then every site gets a request; measured is the time until all have fetched theirs. The peer
is one core, which is what Python's lock leaves to one process. Needs a limit of open files above
the number of sites.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lib.harness import record, resident_mib
from mamfed_common.runtime import terminal

terminal.set_environment()

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: E402
from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)
from flwr.app import ConfigRecord, RecordDict  # noqa: E402
from flwr.proto.fleet_pb2 import (  # noqa: E402
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.node_pb2 import Node  # noqa: E402
from tests.security.lib.door import request_bytes, signed  # noqa: E402
from tests.unit.client.loopback import request_of  # noqa: E402

from mamfed_client.node.connection import WAIT_SECONDS  # noqa: E402
from mamfed_client.node.supernode import LONGEST_POLL  # noqa: E402
from mamfed_common.protocol.versions import WAIT_HEADER  # noqa: E402
from mamfed_common.security.keys import new_ec_key, openssh_text, write_key  # noqa: E402
from mamfed_server.admission.certificate_authority import (  # noqa: E402
    issue_server,
    issue_site,
    make_authority,
    make_plan_key,
)
from mamfed_server.admission.registry import (  # noqa: E402
    IssuedCertificate,
    Registry,
    SiteEntry,
    save_site,
)
from mamfed_server.fleet.connections import raise_file_limit  # noqa: E402
from mamfed_server.fleet.link_transport import LinkTransport  # noqa: E402
from mamfed_server.fleet.request_guard import Limits  # noqa: E402
from mamfed_server.run.closing_message import ClosingMessage  # noqa: E402
from mamfed_server.service.door import Door, build_door  # noqa: E402
from mamfed_server.settings import ServerHome, ServerSettings  # noqa: E402

TLS_KEY, NODES = "tls.key", "nodes.json"
SETTLE_SECONDS = 240.0
COMING_A_SECOND = 30
TELL_SECONDS = 5.0
COUNT_SECONDS = 1.0
HELD_SHARE = 0.85
"""Of a poll and the pause behind it, ten parts in eleven are the poll; some is on its way."""


def enrol(home: ServerHome, folder: Path, count: int) -> None:
    """Write the keys and certificates of sites, as if each had been approved."""
    tls, nodes = new_ec_key(), {}
    write_key(folder / TLS_KEY, tls)
    for number in range(count):
        name, node = f"site-{number:05}", new_ec_key()
        request = request_of(name, tls, node)
        (folder / f"{name}.pem").write_bytes(issue_site(home, request))
        path = folder / f"{name}.key"
        write_key(path, node, openssh=True)
        nodes[name] = path.read_text()
        save_site(home, _entry(folder / f"{name}.pem", name, node))
    (folder / NODES).write_text(json.dumps(nodes))


def _entry(pem: Path, name: str, node: EllipticCurvePrivateKey) -> SiteEntry:
    from mamfed_common.security.certificates import node_fingerprint, read_certificate

    certificate = read_certificate(pem)
    return SiteEntry(
        site=name,
        node_public_key=openssh_text(node.public_key()),
        node_fingerprint=node_fingerprint(node.public_key()),
        certificates=(
            IssuedCertificate(
                serial=f"{certificate.serial_number:x}",
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
            ),
        ),
        approved_at=datetime.now(UTC),
    )


class WaitingSite:
    """One site: a connection, and the polls of its node."""

    def __init__(self, folder: Path, name: str, key: str, port: int) -> None:
        self.node, self._port = load_ssh_private_key(key.encode(), None), port
        self._tls = ssl.create_default_context(cafile=folder / "ca.pem")
        self._tls.load_cert_chain(folder / f"{name}.pem", folder / TLS_KEY)

    async def run(self, delay: float) -> None:
        """Wait for a message; connect again after a failure, as a node does."""
        await asyncio.sleep(delay)
        while True:
            try:
                await self._wait()
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(LONGEST_POLL)
            else:
                return

    async def _wait(self) -> None:
        pipes = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        public = self.node.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        request: Any = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
        answer = ActivateNodeResponse()
        answer.ParseFromString(await self._post(pipes, "activate-node", request))
        poll, found = PullMessagesRequest(node=Node(node_id=answer.node_id)), PullMessagesResponse()
        while not found.messages_list:
            found.ParseFromString(await self._post(pipes, "pull-messages", poll))
            await asyncio.sleep(0 if found.messages_list else LONGEST_POLL)

    async def _post(self, pipes: Any, call: str, message: Any) -> bytes:
        reader, writer = pipes
        headers = [*signed(self.node), (WAIT_HEADER, f"wait={WAIT_SECONDS}")]
        headers.append(("x-mamfed-instance", b64encode(call.encode()).hex()[:16]))
        writer.write(request_bytes(f"/v1/fleet/{call}", headers, message.SerializeToString()))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head.splitlines()[0], head
        length = next(line for line in head.splitlines() if line.startswith("content-length:"))
        return bytes(await reader.readexactly(int(length.split(":")[1])))


async def be_sites(folder: Path, port: int) -> None:
    """Be all the sites, until each has a message."""
    nodes = json.loads((folder / NODES).read_text())
    spread = max((WAIT_SECONDS + LONGEST_POLL) / len(nodes), 1 / COMING_A_SECOND)
    sites = [WaitingSite(folder, name, key, port) for name, key in nodes.items()]
    print("ready", flush=True)
    await asyncio.gather(*(site.run(i * spread) for i, site in enumerate(sites)))
    print("all", flush=True)


def measure(count: int, seconds: float) -> None:
    """Record the processor time of a coordinator with so many waiting sites."""
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name), ServerHome(Path(name) / "server")
        home.path.mkdir()
        make_authority(home, "waiting")
        make_plan_key(home)
        issue_server(home, ["127.0.0.1"])
        (folder / "ca.pem").write_bytes(home.ca.read_bytes())
        enrol(home, folder, count)
        settings = ServerSettings(name="waiting", hosts=("127.0.0.1",), bind="127.0.0.1")
        settings = settings.model_copy(update={"port": 0})  # a free one
        limits = Limits(connections_per_address=4 * count)  # all come from one address here
        door = build_door(home, settings, Registry(home), limits, closing=ClosingMessage("waiting"))
        port, empty = door.listener.start(), resident_mib("VmRSS")
        command = [sys.executable, "-m", __spec__.name, "--be", name, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sites:
            try:
                _show(door, count, seconds, empty, sites)
            finally:
                sites.kill()
                door.close()


def _show(
    door: Door, count: int, seconds: float, empty: float, sites: subprocess.Popen[str]
) -> None:
    _expect("ready", sites)
    _settle(door, count)
    used, began, held = time.process_time(), time.monotonic(), []
    while time.monotonic() < began + seconds:
        time.sleep(COUNT_SECONDS)
        held.append(len(door.link.polls))
    share = (time.process_time() - used) / (time.monotonic() - began)
    memory, open_now = resident_mib("VmRSS"), len(door.listener.open_connections)
    print(
        f"{count} sites: {median(held):.0f} polls held (least {min(held)}, most {max(held)}), "
        f"{open_now} connections, {100 * share:.1f} % of a core, {memory - empty:.0f} MiB beyond "
        f"{empty:.0f}, load {os.getloadavg()[0]:.1f}"
    )
    if median(held) < HELD_SHARE * count:  # their requests wait for a processor
        print("the machine is too busy for so many sites: the share of a core is no measurement")
    transport, began = LinkTransport(door.link), time.monotonic()
    used = time.process_time()
    for node_id in transport.online():
        transport.push(node_id, "train", RecordDict({"body": ConfigRecord({"json": "{}"})}), 3600)
    _expect("all", sites)
    print(
        f"a request to each was fetched after {time.monotonic() - began:.1f} s "
        f"({time.process_time() - used:.1f} s of CPU)"
    )
    name = f"processor time of a coordinator a second, {count:,} sites wait"
    record(name, [share], [1.0], peer_name="one core", unit="s")


def _expect(word: str, sites: subprocess.Popen[str]) -> None:
    """Wait until the process of the sites says a word."""
    assert sites.stdout is not None
    while (line := sites.stdout.readline()).strip() != word:
        if not line:
            raise RuntimeError(f"the process of the sites ended before it said {word!r}")


def _settle(door: Door, count: int) -> None:
    """Wait until nearly all polls are held, and then for as long as two of a site's polls take."""
    deadline = time.monotonic() + SETTLE_SECONDS + count / COMING_A_SECOND
    while len(door.link.polls) < HELD_SHARE * count:
        if time.monotonic() > deadline:
            print("the sites have not settled", flush=True)
            return
        print(
            f"{len(door.listener.open_connections)} connections, {len(door.link.polls)} polls held",
            flush=True,
        )
        time.sleep(TELL_SECONDS)
    time.sleep(2 * (WAIT_SECONDS + LONGEST_POLL))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--seconds", type=float, default=44.0)
    parser.add_argument("--be", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    raise_file_limit()
    if given.be:
        asyncio.run(be_sites(Path(given.be[0]), int(given.be[1])))
        return
    for count in given.sites:
        measure(count, given.seconds)


if __name__ == "__main__":
    main()
