"""Who and what a running coordinator refuses, between real processes: the reason by name."""

import json
import socket
import ssl
import time
from pathlib import Path

import pytest
from tests.processes.deployment import Deployment, free_port, wait_until
from tests.processes.intruder import (
    ask,
    authority_of,
    connect,
    copied,
    headers_of,
    listeners,
    node_key_of,
    peak_bytes,
    processes_below,
    put_certificate,
    put_node_key,
)
from tests.processes.phantoms import small_plan
from tests.unit.server.certificates import Authority, new_key

import nursery
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import REFUSED, read_status
from mamfed_common.errors import LinkError, SetupError
from mamfed_server.fleet.superlink import SuperLink

REVOKED_SECONDS = 60
MIB = 2**20
WAITING_MIB = 190


@pytest.fixture(scope="module")
def standing(phantoms, tmp_path_factory):
    """A coordinator that waits for sites that never come: three of them, and one to be revoked."""
    folder = tmp_path_factory.mktemp("standing")
    plan = folder / "plan.yaml"
    plan.write_text(small_plan().to_yaml())
    with Deployment(folder, phantoms | {"dubious": phantoms["aurora"]}) as federation:
        with nursery.executed():  # it is asked what it has imported
            federation.start_server(plan)
        federation.wait_for_listener()
        yield federation


@pytest.fixture(scope="module")
def homes(standing):
    """Homes of sites with one thing wrong in each, by what that is."""

    def copy(site="aurora"):
        return copied(standing, site, standing.folder / "copies" / str(free_port()))

    own, key = authority_of(standing), new_key()
    other_key = node_key_of(SiteHome(standing.site_home("borealis")))
    return {
        "good": copy(),
        "wrong CA": put_certificate(copy(), Authority(), "aurora"),
        "expired": put_certificate(copy(), own, "aurora", start_days=-10, days=5),
        "not yet valid": put_certificate(copy(), own, "aurora", start_days=2, days=5),
        "another's certificate": put_node_key(copy("borealis"), node_key_of(copy())),
        "another's key": put_node_key(copy(), other_key),
        "unregistered site": put_certificate(put_node_key(copy(), key), own, "stranger"),
        "unregistered key": put_certificate(put_node_key(copy(), key), own, "aurora"),
        "unregistered certificate": put_certificate(copy(), own, "aurora"),
    }


NODES = {
    "another's certificate": (REFUSED, "certificate of borealis belongs to another node key"),
    "another's key": (REFUSED, "certificate of aurora belongs to another node key"),
    "unregistered site": (REFUSED, "certificate of stranger is not of this federation"),
    "unregistered key": (REFUSED, "certificate of aurora belongs to another node key"),
    "unregistered certificate": (REFUSED, "has a serial number that is unknown here"),
    "another mamfed": (LinkError.exit_code, "found mamfed '9.9.0'"),
    "another Flower": (LinkError.exit_code, "found Flower '1.38.0'"),
}
OTHER_MAMFED = "import mamfed_common; mamfed_common.__version__ = '9.9.0'; "
OTHER_FLOWER = (
    "from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata as Versions; "
    "own = Versions.as_metadata; "
    "Versions.as_metadata = lambda self: tuple((name, '1.38.0' if name == 'flwr-package-version' "
    "else value) for name, value in own(self)); "
)
NODE = ("python", "-m", "mamfed_client.node.supernode")
MAIN = "from mamfed_client.node.supernode import main; main()"


@pytest.fixture(scope="module")
def nodes(standing, homes):
    """The real node of each of these homes, running."""
    of_versions = {"another mamfed": OTHER_MAMFED, "another Flower": OTHER_FLOWER}
    for what in NODES:
        if what in of_versions:
            homes[what] = copied(standing, "cirrus", standing.folder / "copies" / what)
            node = ("python", "-c", of_versions[what] + MAIN)
        else:
            node = NODE
        standing.start(what, *node, homes[what].path)
    return {what: standing.processes[what] for what in NODES}


@pytest.mark.parametrize("what", list(NODES))
def test_a_node_that_does_not_belong_is_refused_and_told_why(nodes, homes, what):
    code, reason = NODES[what]
    assert nodes[what].wait(60) == code
    status = read_status(homes[what])
    assert status.state == "refused"
    assert reason in status.error


def test_the_coordinators_log_says_who_was_refused_and_why(nodes, homes, standing):
    for process in nodes.values():
        process.wait(60)
    log = (standing.server_home / "logs" / "server.log").read_text()
    for code, reason in NODES.values():
        status = 403 if code == REFUSED else 426
        assert any(f"{status} /v1/fleet/" in s and reason in s for s in log.splitlines()), reason


@pytest.mark.parametrize("what", ["none", "wrong CA", "expired", "not yet valid"])
def test_a_certificate_that_does_not_hold_ends_the_connection(standing, homes, what):
    # asyncio hangs up without the alert that names the reason.
    with connect(standing, homes.get(what)) as line:
        assert answer_to(line, "/health") == ""
    with connect(standing, homes["good"]) as line:
        assert answer_to(line, "/health").startswith("HTTP/1.1 200")


def answer_to(line, path):
    """Return what a GET brings, nothing where the other side hangs up."""
    try:
        return ask(line, "GET", path)
    except (ssl.SSLError, ConnectionError):
        return ""


def test_a_site_of_another_authority_says_that_its_certificate_may_be_why(standing, homes):
    home = homes["wrong CA"]
    standing.start("wrong CA", *NODE, home.path)
    wait_until(lambda: read_status(home).state == "unreachable", "the node is turned away")
    assert "the server may not accept this site's certificate" in read_status(home).error
    standing.stop("wrong CA")


@pytest.mark.parametrize(
    ("what", "reason"), [("expired", "expired on"), ("not yet valid", "valid from")]
)
def test_a_site_says_itself_that_its_certificate_does_not_hold(standing, homes, what, reason):
    welcome = json.loads(homes[what].welcome.read_text())
    welcome["certificate"] = homes[what].certificate.read_text()
    homes[what].welcome.write_text(json.dumps(welcome))
    done = standing.command(
        "mamfed-client", "start", "--home", homes[what].path, code=SetupError.exit_code
    )
    assert "certificate" in done.stderr
    assert reason in done.stderr


def test_a_running_site_that_is_revoked_is_shut_out_within_a_minute(standing):
    home = standing.site_home("dubious")
    standing.start_site("dubious")
    state = lambda: read_status(SiteHome(home)).state  # noqa: E731
    wait_until(lambda: state() == "online", "dubious is let in")
    standing.command(
        "mamfed-server", "sites", "revoke", "dubious", "--yes", "--home", standing.server_home
    )
    revoked = time.monotonic()
    wait_until(lambda: state() == "refused", "dubious is refused", REVOKED_SECONDS)
    print(f"refused {time.monotonic() - revoked:.1f} s after the revocation")
    shown = standing.command("mamfed-client", "status", "--home", home, "--format", "json")
    found = json.loads(shown.stdout)
    assert found["running"] is True
    assert found["status"]["error"].endswith(
        "certificate of dubious is revoked; ask the coordinator"
    )
    assert standing.stop("dubious") == 0


def test_plaintext_gets_no_answer(standing):
    with socket.create_connection(("127.0.0.1", standing.port), timeout=20) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP" not in received(line)


def received(line):
    """Return what comes until the other side closes."""
    found = b""
    try:
        while part := line.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def test_no_control_or_runtime_call_exists_outside(standing, homes):
    link = SuperLink()
    link.close()
    prefixes = ("/v1/control/", "/v1/runtime/")
    paths = [path for path in link.app.openapi()["paths"] if path.startswith(prefixes)]
    assert len(paths) > 50
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task"} <= set(paths)
    with connect(standing, homes["good"]) as line:
        assert ask(line, "GET", "/health").startswith("HTTP/1.1 200")
    for path in [*paths, "/docs", "/openapi.json"]:
        with connect(standing, homes["good"]) as line:
            headers = {**headers_of(homes["good"]), "content-length": "0"}
            assert ask(line, "POST", path, **headers).startswith("HTTP/1.1 404"), path


def test_the_coordinators_processes_take_connections_at_one_port_only(standing):
    pids = processes_below(standing.processes["server"].pid)
    assert len(pids) == 2
    assert listeners(pids) == [("0100007F", standing.port)]


def test_a_coordinator_that_waits_for_its_sites_has_not_imported_torch(standing):
    for pid in processes_below(standing.processes["server"].pid):
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert not [name for name in ("libtorch", "cv2", "matplotlib") if name in mapped]
        assert peak_bytes(pid) < WAITING_MIB * MIB


@pytest.mark.parametrize("claimed", [{"content-length": 2**31}, {"transfer-encoding": "chunked"}])
def test_a_body_of_two_gib_is_refused_and_costs_no_memory(standing, homes, claimed):
    pid = json.loads((standing.server_home / "status.json").read_text())["pid"]
    before = peak_bytes(pid)
    with connect(standing, homes["good"]) as line:
        headers = {**headers_of(homes["good"]), **claimed}
        words = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        line.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\n{words}\r\n".encode())
        sent = flood(line, chunked="transfer-encoding" in claimed)
    grown = peak_bytes(pid) - before
    print(f"{sent / MIB:.0f} MiB were taken, memory grew by {grown / MIB:.1f} MiB")
    assert sent < 2**31
    assert grown < 64 * MIB


def flood(line, chunked):
    """Send 2 GiB; return how much went out before the other side answered or hung up."""
    part = bytes(MIB)
    if chunked:
        part = b"100000\r\n" + part + b"\r\n"
    for sent in range(2048):
        try:
            if answer := received_so_far(line):
                assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 411"))
                return sent * MIB
            line.sendall(part)
        except (ssl.SSLError, ConnectionError):
            return sent * MIB
    return 2**31


def received_so_far(line):
    line.setblocking(False)
    try:
        return line.recv(65536)
    except ssl.SSLWantReadError:
        return b""
    finally:
        line.settimeout(20)
