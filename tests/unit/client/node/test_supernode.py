"""The node as a real process, against the coordinator's real listener on loopback."""

import json
import os
import shutil
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import ConfigRecord, RecordDict
from tests.unit.client.loopback import Coordinator, Processes, request_of, wait_for, wait_for_state

from mamfed_client.node.connection import Connection, fleet_client
from mamfed_client.node.connection_errors import explain
from mamfed_client.node.flower_compat import PARTS, check_flower_parts
from mamfed_client.node.server_tls import tls_context
from mamfed_client.node.supernode import (
    LONGEST_POLL,
    RUNTIME_FILE,
    SHORTEST_POLL,
    PollingClock,
    Watchdog,
)
from mamfed_client.node.supervisor import words
from mamfed_client.site.settings import SiteHome
from mamfed_client.site.status import (
    REFUSED,
    STARTS_OVER,
    RunEnding,
    Status,
    Task,
    read_status,
    update_status,
)
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.polling import SHORTEST_SECONDS
from mamfed_common.runtime.seal import sealed, unsealed
from mamfed_common.security.enrolment import read_welcome, write_document
from mamfed_common.security.keys import new_ec_key, write_key
from mamfed_server.admission.approval import revoke
from mamfed_server.admission.certificate_authority import issue_server, issue_site, make_authority
from mamfed_server.run.closing_message import MAX_WAIT_SECONDS
from mamfed_server.run.state import RunState
from mamfed_server.settings import ServerHome


@pytest.fixture
def coordinator(tmp_path):
    found = Coordinator(tmp_path / "server")
    yield found
    found.close()


@pytest.fixture
def home(coordinator, tmp_path):
    return coordinator.enrol(tmp_path / "site")


@pytest.fixture
def processes():
    found = Processes()
    yield found
    found.end()


def point_at(home, port):
    welcome = read_welcome(home.welcome)
    write_document(home.welcome, welcome.model_copy(update={"server": f"127.0.0.1:{port}"}))


def test_a_node_connects_by_its_certificate_says_so_and_leaves_on_sigterm(
    coordinator, home, processes
):
    node = processes.module("node", home)
    status = wait_for_state(home, "online")
    assert coordinator.is_online()
    assert set(coordinator.contacts) == {"here"}
    assert status.node_pid == node.pid
    assert datetime.now(UTC) - status.last_contact < timedelta(seconds=30)
    assert home.status.stat().st_mode & 0o777 == 0o600
    assert (home.path / RUNTIME_FILE).stat().st_mode & 0o777 == 0o600
    node.terminate()
    assert node.wait(20) == 0
    assert not coordinator.is_online()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("finished", "run first has finished; its final model is {model}, with a card.md beside"),
        ("failed", "run first has failed; the coordinator may fix it and resume"),
        ("stopped", "run first is paused; it resumes when the coordinator starts it again"),
    ],
)
def test_a_site_hears_how_the_run_ended_before_the_server_is_gone(
    coordinator, home, processes, how, said
):
    processes.module("node", home)
    wait_for_state(home, "online")
    model = home.models / "first-0123456789ab" / "shared.safetensors"
    if how == "finished":
        model.parent.mkdir(parents=True)
        model.touch()
    started = time.monotonic()
    coordinator.news.end(RunState(how))
    assert time.monotonic() - started < MAX_WAIT_SECONDS  # it was told, not given up
    said = said.format(model=model)
    wait_for(lambda: words(read_status(home)).startswith(f"online: {said}"))
    coordinator.front.stop()
    status = wait_for_state(home, "unreachable")
    assert words(status).startswith(f"waiting for the next run: {said}")
    assert words(status).endswith(
        f"(nothing answers at 127.0.0.1:{coordinator.port}: the run may have ended or not begun, "
        "or a firewall blocks it (connection refused))"
    )


def test_two_nodes_of_one_identity_are_noticed_once_and_a_restart_is_none(
    coordinator, home, processes, tmp_path
):
    processes.module("node", home)
    wait_for_state(home, "online")
    first = processes.started[0]
    first.kill()
    first.wait()
    home.status.unlink()
    processes.module("node", home)
    wait_for_state(home, "online")
    assert coordinator.doubled == []
    shutil.copytree(home.path, tmp_path / "copy")
    processes.module("node", SiteHome(tmp_path / "copy"))
    wait_for(lambda: coordinator.doubled, "nobody noticed")
    time.sleep(1)
    assert coordinator.doubled == ["here"]
    assert coordinator.twins.now()["here"]["addresses"] == ["127.0.0.1"]


def test_a_server_of_another_authority_is_never_talked_to(coordinator, home, processes, tmp_path):
    other = ServerHome(tmp_path / "other")
    other.path.mkdir()
    make_authority(other, "other")
    home.ca.write_bytes(other.ca.read_bytes())
    processes.module("node", home)
    status = wait_for_state(home, "unreachable")
    assert "not from the authority" in status.error
    assert not coordinator.contacts


def test_a_server_whose_certificate_names_another_host_is_never_talked_to(
    coordinator, home, processes
):
    issue_server(coordinator.home, ["elsewhere.example.org"])
    assert coordinator.front.reload()
    processes.module("node", home)
    assert "another host name" in wait_for_state(home, "unreachable").error
    assert not coordinator.contacts


def test_a_node_that_is_revoked_ends_as_refused_with_the_coordinators_words(
    coordinator, home, processes
):
    node = processes.module("node", home)
    wait_for_state(home, "online")
    revoke(coordinator.home, "here")
    assert node.wait(20) == REFUSED
    status = read_status(home)
    assert status.state == "refused"
    assert "revoked" in status.error


def test_another_minor_version_ends_a_node_for_good(coordinator, home, processes, executed):
    node = processes.code(
        home,
        "import mamfed_common; mamfed_common.__version__ = '99.1.0'\n"
        "from pathlib import Path; from mamfed_client.site.settings import SiteHome\n"
        "from mamfed_client.node.supernode import run_node\n"
        f"run_node(SiteHome(Path({str(home.path)!r})))",
    )
    assert node.wait(20) == LinkError.exit_code
    assert "99.1.0" in read_status(home).error


def test_a_server_that_was_started_anew_makes_the_node_start_over(coordinator, home, processes):
    node = processes.module("node", home)
    wait_for_state(home, "online")
    coordinator.restart()
    assert node.wait(30) == STARTS_OVER


def test_a_silent_server_ends_the_node_after_its_patience(coordinator, home, processes):
    mute = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=hold_connections, args=(mute,), daemon=True)
    accepting.start()
    point_at(home, mute.getsockname()[1])
    node = processes.code(
        home,
        "from pathlib import Path; from mamfed_client.site.settings import SiteHome\n"
        "from mamfed_client.node.supernode import run_node\n"
        f"run_node(SiteHome(Path({str(home.path)!r})), silence_seconds=1.5)",
    )
    assert node.wait(20) == STARTS_OVER
    assert "silent" in read_status(home).error
    mute.close()


def hold_connections(listener):
    held = []
    while True:
        try:
            held.append(listener.accept())
        except OSError:
            return


def test_a_node_outlasts_the_servers_absence_and_shows_a_renewed_certificate(
    coordinator, home, processes
):
    node = processes.module("node", home)
    wait_for_state(home, "online")
    coordinator.front.stop()
    wait_for_state(home, "unreachable")
    known = coordinator.home.sites / "here.json"
    coordinator.renew(home)
    entry = json.loads(unsealed(known.read_text()))
    assert len(entry["certificates"]) == 2
    known.write_text(sealed(json.dumps(entry | {"certificates": entry["certificates"][1:]})))
    coordinator.listen()
    wait_for_state(home, "online")
    assert node.poll() is None


@pytest.mark.parametrize(
    ("start", "words"), [(-400, "expired on"), (+2, "valid from")], ids=["expired", "not yet"]
)
def test_a_site_certificate_out_of_its_dates_is_named(coordinator, home, processes, start, words):
    tls_key, node_key = new_ec_key(), new_ec_key()
    now = datetime.now(UTC) + timedelta(days=start)
    pem = issue_site(coordinator.home, request_of("here", tls_key, node_key), 30, now)
    home.certificate.write_bytes(pem)
    home.tls_key.unlink()
    write_key(home.tls_key, tls_key)
    processes.module("node", home)
    assert words in wait_for_state(home, "unreachable").error
    assert not coordinator.contacts


def test_a_certificate_of_another_key_is_a_setup_error(coordinator, home, tmp_path):
    other = coordinator.enrol(tmp_path / "other", "other")
    home.certificate.write_bytes(other.certificate.read_bytes())
    with pytest.raises(SetupError, match="KEY_VALUES_MISMATCH"):
        tls_context(home)


def test_plaintext_is_named(home):
    listener = socket.create_server(("127.0.0.1", 0))

    def speak_plainly():
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()

    threading.Thread(target=speak_plainly, daemon=True).start()
    client = socket.create_connection(listener.getsockname())
    with pytest.raises(ssl.SSLError) as caught:
        tls_context(home).wrap_socket(client, server_hostname="127.0.0.1")
    assert explain(caught.value, "server:1") == "server:1: the server does not speak TLS"
    listener.close()
    client.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "unknown host name"),
        (ConnectionRefusedError(), "connection refused"),
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(), "reset by the other side"),
    ],
)
def test_each_failure_of_the_line_has_words_of_its_own(error, words):
    outer = RuntimeError("wrapped")
    outer.__cause__ = error
    assert words in explain(outer, "server:1")


class NodeEnded(Exception):
    pass


@pytest.fixture
def link(home):
    def end(code):
        raise NodeEnded(code)

    return Connection(home, "server:1", end)


def test_the_end_of_a_run_is_believed_until_another_one_goes_on(link):
    link.hear_of_run("failed night%20shift")
    assert link.ended.words() == (
        "run night shift has failed; the coordinator may fix it and resume"
    )
    for header in ("running night%20shift", "", "nonsense first", "\x1b[2J"):
        link.hear_of_run("stopped night%20shift")
        link.hear_of_run(header)
        assert link.ended is None
    link.hear_of_run("finished %1b[2J")
    assert link.ended.run == "[2J"  # nothing that a terminal would obey


def test_a_node_at_work_outlasts_an_absent_server_as_long_as_it_tries(link):
    watchdog = Watchdog(link, silence_seconds=90)
    link.contact_at -= 1000
    link.busy = True
    assert not watchdog.is_silent()
    link.attempt_at -= 91
    assert watchdog.is_silent()


def test_an_idle_node_that_tries_in_vain_is_started_anew_rarely(link):
    watchdog = Watchdog(link, silence_seconds=90)
    link.contact_at -= 850
    assert not watchdog.is_silent()
    link.contact_at -= 100
    assert watchdog.is_silent()


def test_polls_are_quick_after_a_message_and_rare_without(link, monkeypatch):
    slept = []
    monkeypatch.setattr("mamfed_client.node.supernode.time", type("T", (), {"sleep": slept.append}))
    pace = PollingClock(link)
    pace.sleep(3)
    pace.sleep(0.5)
    assert slept == [LONGEST_POLL, 0.5]
    link.message_at = time.monotonic()
    pace.sleep(3)
    pace.sleep(0.5)
    assert slept[2:] == [SHORTEST_POLL, SHORTEST_SECONDS]
    link.message_at = time.monotonic() - 4
    pace.sleep(3)
    pace.sleep(0.5)
    assert slept[4:] == pytest.approx([0.4, 0.4], rel=0.1)


def test_all_parts_of_flower_that_are_used_are_there():
    check_flower_parts()


@pytest.mark.parametrize("number", range(len(PARTS)))
def test_a_part_of_flower_that_moved_is_named(number):
    module, name, parameters = PARTS[number]
    with pytest.raises(SetupError, match=f"{name}_moved"):
        check_flower_parts(((module, f"{name}_moved", parameters),))
    if parameters:
        with pytest.raises(SetupError, match="has no parameter 'a_new_one'"):
            check_flower_parts(((module, name, f"{parameters} a_new_one"),))


def test_a_status_keeps_what_others_wrote_and_when_its_state_changed(home):
    update_status(home, state="online", node_pid=1)
    since = read_status(home).since
    update_status(home, worker_pid=2)
    update_status(home, state="online")
    status = read_status(home)
    assert (status.node_pid, status.worker_pid, status.since) == (1, 2, since)
    update_status(home, state="unreachable", error="x")
    assert read_status(home).since > since


def test_a_damaged_status_counts_as_none(home):
    home.status.write_text("{")
    assert read_status(home).state == "stopped"
    update_status(home, node_pid=os.getpid())
    assert read_status(home).node_pid == os.getpid()


def test_a_message_reaches_the_node_within_seconds_and_marks_it_as_training(
    coordinator, home, processes
):
    processes.module("node", home)
    wait_for_state(home, "online")
    content = RecordDict({"body": ConfigRecord({"json": "{}"})})
    started = time.monotonic()
    assert coordinator.transport.push(coordinator.node_id, "query", content, 600)
    wait_for(lambda: read_status(home).state == "training" or time.monotonic() > started + 20)


def test_keys_that_others_may_read_stop_a_node(home, processes):
    home.node_key.chmod(0o644)
    node = processes.module("node", home)
    assert node.wait(20) == SetupError.exit_code
    assert "chmod 600" in read_status(home).error


def test_a_site_to_which_no_model_came_is_told_how_to_get_it():
    assert RunEnding(run="first", how="finished").words() == (
        "run first has finished; no model arrived here: ask the coordinator for model.safetensors, "
        "then run mamfed-client models add model.safetensors --run first"
    )
    assert "model" not in RunEnding(run="first", how="failed").words()


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (None, "working: reading a request"),
        (Task(kind="query"), "working: describing this site's data"),
        (Task(kind="evaluate"), "working: scoring the model"),
        (
            Task(kind="evaluate", steps=9),
            "working: adapting the model to this site's own patients",
        ),
        (
            Task(kind="train", stage="finetuning", server_round=3),
            "working: training, finetuning round 3",
        ),
    ],
)
def test_the_terminal_says_in_words_what_a_site_does(task, said):
    assert words(Status(state="training", task=task)) == said


def test_a_node_leaves_out_heartbeats_while_its_polls_renew_its_lease(link, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "mamfed_client.node.flower_compat.FleetHttpClient.SendNodeHeartbeat",
        lambda self, request: sent.append(request),
    )
    client = object.__new__(fleet_client(link))
    client.SendNodeHeartbeat(None)
    link.hear_of_lease("")  # a coordinator of an older version
    client.SendNodeHeartbeat(None)
    assert len(sent) == 2
    assert not link.is_offered_again
    link.hear_of_lease("60")
    assert client.SendNodeHeartbeat(None).success
    assert len(sent) == 2
    link.leased_until -= 40
    client.SendNodeHeartbeat(None)
    assert len(sent) == 3


def test_a_site_that_waits_for_a_message_is_not_training(link):
    link.busy = True
    link.answered()
    assert link.state == "training"
    link.waits()
    assert link.state == "online"
