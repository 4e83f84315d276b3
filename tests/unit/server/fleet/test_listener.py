"""The listener, over real TLS on loopback: what comes in, and all that does not."""

import os
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode

import httpx
import pytest
from cryptography.x509 import load_der_x509_certificate
from flwr.app import Message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from tests.unit.server.certificates import (
    Authority,
    new_key,
)
from tests.unit.server.fleet.federation import LIMITS, Federation, Site

from mamfed_common import __version__
from mamfed_common.errors import LinkError
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.messages import pack
from mamfed_common.protocol.tasks import Query
from mamfed_common.protocol.versions import MAMFED_HEADER, flower_version
from mamfed_server.fleet import listener
from mamfed_server.fleet.connections import CONNECTIONS_PER_SITE
from mamfed_server.fleet.link_transport import LinkTransport
from mamfed_server.fleet.listener import TlsListener


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    yield made
    made.close()


def refusal(response, status):
    assert response.status_code == status, response.text
    return response.json()["detail"]


def test_a_known_site_connects_and_is_noted(federation):
    site = federation.site("a")
    node_id = site.activate()
    assert list(LinkTransport(federation.link).online()) == [node_id]
    assert federation.contacts == [("a", b"", "127.0.0.1")]


def test_health_names_the_versions_and_the_time(federation):
    response = federation.site("a").http.get("/health")
    assert response.status_code == 200
    assert response.headers[MAMFED_HEADER] == __version__
    assert response.headers[listener.FLOWER_HEADER] == flower_version()
    assert "date" in response.headers
    assert "server" not in response.headers


def test_a_killed_site_connects_again_at_once(federation):
    site = federation.site("a")
    assert site.activate() == site.activate()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-runs",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/pull-task-input",
        "/docs",
        "/openapi.json",
        "/",
        "/v1/fleet/../control/start-run",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/pull-messages",
    ],
)
def test_nothing_but_fleet_and_health_is_there(federation, path):
    site = federation.site("a")
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        response = site.http.request(method, path, headers={"x-forwarded-for": "127.0.0.1"})
        assert response.status_code == 404, (method, path)


def test_without_a_certificate_nobody_gets_in(federation):
    site = Site(federation, None, None, new_key())
    with pytest.raises(httpx.TransportError):
        site.http.get("/health")


@pytest.mark.parametrize(
    "made",
    [
        {"authority": "another"},
        {"start_days": -10, "days": 5},
        {"start_days": 2, "days": 5},
    ],
    ids=["another authority", "expired", "not yet valid"],
)
def test_a_certificate_that_does_not_hold_ends_the_handshake(federation, made):
    if made.get("authority"):
        made = {"authority": Authority()}  # even of the same name
    site = federation.site("a", **made)
    with pytest.raises(httpx.TransportError):
        site.http.get("/health")


def test_plain_http_gets_no_answer(federation):
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{federation.port}/health", trust_env=False)


def test_tls_below_1_3_is_refused(federation):
    site = federation.site("a")
    context = federation.context()
    context.load_cert_chain(federation.folder / "a.pem", federation.folder / "a.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.TransportError):
        httpx.get(f"https://127.0.0.1:{federation.port}/health", verify=context, trust_env=False)
    assert site.http.get("/health").status_code == 200


def test_a_certificate_that_the_registry_does_not_know_is_refused(federation):
    site = federation.site("a", known=False)
    assert "not known" in refusal(site.activate(), 403)
    assert "not known" in refusal(site.http.get("/health"), 403)


def test_a_revoked_site_is_refused_on_its_open_connection(federation):
    site = federation.site("a")
    node_id = site.activate()
    federation.roll.revoked.add("a")
    message = PullMessagesRequest(node=Node(node_id=node_id))
    assert "revoked" in refusal(site.post("pull-messages", message), 403)


def test_ones_own_certificate_with_another_sites_key_is_refused(federation):
    one, other = federation.site("a"), federation.site("b")
    other_id = other.activate()
    message = PullMessagesRequest(node=Node(node_id=other_id))
    assert "another site" in refusal(one.post("pull-messages", message, node=other.node), 403)


def test_ones_own_key_with_another_sites_certificate_is_refused(federation):
    one, other = federation.site("a"), federation.site("b")
    node_id = one.activate()
    message = PullMessagesRequest(node=Node(node_id=node_id))
    assert "another site" in refusal(other.post("pull-messages", message, node=one.node), 403)


def test_another_sites_node_id_with_ones_own_key_is_refused(federation):
    one, other = federation.site("a"), federation.site("b")
    one.activate()
    message = PullMessagesRequest(node=Node(node_id=other.activate()))
    assert one.post("pull-messages", message).status_code == 401


def test_an_unregistered_key_is_refused(federation):
    site = federation.site("a")
    site.activate()
    assert refusal(site.post("pull-messages", b"", node=new_key()), 403)


def test_a_key_header_of_garbage_is_refused(federation):
    site = federation.site("a")
    changes = {FLEET_HTTP_PUBLIC_KEY_HEADER: "AAAA"}
    assert "cannot be read" in refusal(site.post("pull-messages", b"", **changes), 403)


@pytest.mark.parametrize(
    ("header", "value", "names"),
    [
        (MAMFED_HEADER, "9.9.0", "mamfed '9.9.0'"),
        (MAMFED_HEADER, "", "mamfed ''"),
        (FLWR_PACKAGE_VERSION_METADATA_KEY, "1.38.0", "Flower '1.38.0'"),
        (FLWR_PACKAGE_VERSION_METADATA_KEY, "nonsense", "Flower 'nonsense'"),
    ],
)
def test_another_version_is_refused_by_name(federation, header, value, names):
    site = federation.site("a")
    assert names in refusal(site.activate(**{header: value}), 426)


def test_a_message_in_another_sites_name_is_refused(federation):
    one, other = federation.site("a"), federation.site("b")
    one_id, other_id = one.activate(), other.activate()
    transport = LinkTransport(federation.link)
    transport.push(other_id, "query", pack(Query(plan=TrainingPlan())), 60.0)
    (asked,) = federation.link.state.get_message_ins(other_id, 1)
    forged = Message(pack(Query(plan=TrainingPlan())), reply_to=asked)
    forged.metadata.__dict__["_message_id"] = forged.object_id
    push = PushMessagesRequest(
        node=Node(node_id=one_id),
        messages_list=[message_to_proto(forged)],
        message_object_trees=[get_object_tree(forged)],
    )
    assert "another site's name" in refusal(one.post("push-messages", push), 400)
    push.node.node_id = other_id
    assert one.post("push-messages", push).status_code == 401
    assert federation.link.state.num_message_res() == 0


def test_a_push_to_the_server_before_is_told_to_start_over(federation):
    """Flower's 401, by which a node connects anew, and no refusal that lasts."""
    site = federation.site("a")
    site.activate()
    message = Message(pack(Query(plan=TrainingPlan())), dst_node_id=7, message_type="query")
    message.metadata.__dict__["_message_id"] = message.object_id
    message.metadata.__dict__["_src_node_id"] = 7
    push = PushMessagesRequest(node=Node(node_id=7), messages_list=[message_to_proto(message)])
    assert site.post("push-messages", push).status_code == 401


def test_a_body_larger_than_allowed_is_refused_before_it_is_read(federation):
    site = federation.site("a")
    context = federation.context()
    context.load_cert_chain(federation.folder / "a.pem", federation.folder / "a.key")
    raw = context.wrap_socket(
        socket.create_connection(("127.0.0.1", federation.port)), server_hostname="127.0.0.1"
    )
    headers = {
        "host": "x",
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(site.public).decode(),
        MAMFED_HEADER: __version__,
        FLWR_PACKAGE_VERSION_METADATA_KEY: flower_version(),
        "content-length": str(2 << 30),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw.sendall(f"POST /v1/fleet/pull-messages HTTP/1.1\r\n{lines}\r\n".encode())
    assert raw.recv(100).startswith(b"HTTP/1.1 413")
    raw.close()


def test_a_body_without_a_length_is_refused(federation):
    site = federation.site("a")
    response = site.post("pull-messages", bytes(0), **{"x": "y"})
    assert response.status_code != 413

    def chunks():
        for _ in range(200):
            yield bytes(1000)

    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(site.public).decode(),
        MAMFED_HEADER: __version__,
        FLWR_PACKAGE_VERSION_METADATA_KEY: flower_version(),
    }
    response = site.http.post("/v1/fleet/pull-messages", content=chunks(), headers=headers)
    assert response.status_code == 411


def test_a_body_that_does_not_come_is_given_up(federation):
    site = federation.site("a")

    def slow():
        yield b"a"
        time.sleep(1.5)
        yield b"b"

    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(site.public).decode(),
        MAMFED_HEADER: __version__,
        FLWR_PACKAGE_VERSION_METADATA_KEY: flower_version(),
        "content-length": "2",
    }
    response = site.http.post("/v1/fleet/pull-messages", content=slow(), headers=headers)
    assert response.status_code == 408


def test_parts_beyond_any_answer_are_refused(federation):
    site = federation.site("a")
    part = PushObjectRequest(
        node=Node(node_id=site.activate()),
        run_id=federation.link.run_id,
        object_content=bytes(90_000),
    )
    assert [site.post("push-object", part).status_code for _ in range(2)] == [200, 413]


def test_one_site_has_but_so_many_connections_and_the_latest_ones(federation):
    site, other = federation.site("a"), federation.site("b")
    held = [site.connect() for _ in range(2 * CONNECTIONS_PER_SITE)]
    for line in held:
        line.settimeout(5)
    assert other.http.get("/health").status_code == 200
    wait_until(lambda: len(federation.front.open_connections) <= CONNECTIONS_PER_SITE + 1)
    assert answers(held[-1])
    assert not answers(held[0])
    for line in held:
        line.close()


def answers(line):
    try:
        line.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        return line.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def wait_until(done, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_connection_that_asks_for_nothing_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "FIRST_REQUEST_SECONDS", 0.2)
    federation = Federation(tmp_path)
    federation.site("a")
    context = federation.context()
    context.load_cert_chain(tmp_path / "a.pem", tmp_path / "a.key")
    raw = socket.create_connection(("127.0.0.1", federation.port))
    tls = context.wrap_socket(raw, server_hostname="127.0.0.1")
    tls.settimeout(5)
    assert tls.recv(1) == b""
    tls.close()
    federation.close()


def test_a_renewed_server_certificate_is_taken_without_a_restart(federation):
    site = federation.site("a")
    node_id = site.activate()

    def serial():
        with socket.create_connection(("127.0.0.1", federation.port)) as raw:
            context = federation.context()
            context.load_cert_chain(federation.folder / "a.pem", federation.folder / "a.key")
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                return load_der_x509_certificate(tls.getpeercert(True)).serial_number

    before = serial()
    assert not federation.front.reload()
    federation.renew_server()
    assert federation.front.reload()
    assert serial() != before
    response = site.post("pull-messages", PullMessagesRequest(node=Node(node_id=node_id)))
    PullMessagesResponse().ParseFromString(response.content)
    assert response.status_code == 200


def test_a_damaged_server_certificate_leaves_the_old_one(federation):
    (federation.folder / "server.pem").write_text("nonsense")
    with pytest.raises(LinkError, match="cannot be used"):
        federation.front.reload()
    assert federation.site("a").http.get("/health").status_code == 200


def test_an_address_in_use_is_an_error(federation, tmp_path):
    again = TlsListener(
        lambda *_: None,
        "127.0.0.1",
        federation.port,
        ca=tmp_path / "ca.pem",
        certificate=tmp_path / "server.pem",
        key=tmp_path / "server.key",
        limits=LIMITS,
    )
    with pytest.raises(LinkError, match=r"cannot listen on 127\.0\.0\.1"):
        again.start()


def test_the_server_listens_on_nothing_else(federation):
    federation.site("a").activate()
    code = (
        "import os,sys; own=set(); fd=f'/proc/{sys.argv[1]}/fd'\n"
        "for f in os.listdir(fd):\n"
        "    try: own.add(os.readlink(f'{fd}/{f}'))\n"
        "    except OSError: pass\n"
        "for table in ('tcp', 'tcp6'):\n"
        "    for line in open(f'/proc/{sys.argv[1]}/net/{table}').readlines()[1:]:\n"
        "        cells=line.split()\n"
        "        if cells[3]=='0A' and f'socket:[{cells[9]}]' in own:\n"
        "            print(int(cells[1].split(':')[1],16))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(federation.port)]
