"""A site's poll waits at the real listener: what it is told, when, and what is not lost."""

import threading
import time

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from tests.unit.server.fleet.federation import Federation

from mamfed_common.protocol.versions import LEASE_HEADER, WAIT_HEADER
from mamfed_server.fleet.link_transport import LinkTransport

WAIT = {WAIT_HEADER: "wait=4"}


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture
def site(federation):
    made = federation.site("a")
    made.node_id = made.activate()
    return made


def poll(site, **headers):
    return site.post(
        "pull-messages", PullMessagesRequest(node=Node(node_id=site.node_id)), **headers
    )


def message_in(response):
    assert response.status_code == 200, response.text
    answer = PullMessagesResponse()
    answer.ParseFromString(response.content)
    return answer.messages_list[0].metadata.message_id if answer.messages_list else None


def ask(federation, site):
    content = RecordDict({"body": ConfigRecord({"json": "{}"})})
    return LinkTransport(federation.link).push(site.node_id, "train", content, 600)


def in_the_meantime(federation, act):
    """Act once a poll waits."""

    def watch():
        while not len(federation.link.polls):
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_poll_that_waits_has_the_request_once_it_is_there(federation, site):
    asked = []
    thread = in_the_meantime(federation, lambda: asked.append(ask(federation, site)))
    response = poll(site, **WAIT)
    thread.join()
    assert [message_in(response)] == asked
    assert response.headers[LEASE_HEADER] == "60"


def test_a_poll_that_does_not_ask_to_wait_is_answered_at_once(federation, site):
    began = time.monotonic()
    assert message_in(poll(site)) is None
    assert message_in(poll(site, **{WAIT_HEADER: "wait=-4"})) is None
    assert time.monotonic() - began < 3


def test_a_request_is_offered_again_until_it_is_confirmed(federation, site):
    asked = ask(federation, site)
    assert message_in(poll(site)) == asked
    assert message_in(poll(site)) is None  # a node of an older version would work twice
    assert message_in(poll(site, **WAIT)) == asked
    node = Node(node_id=site.node_id)
    received = ConfirmMessageReceivedRequest(
        node=node, run_id=federation.link.run_id, message_object_id=asked
    )
    assert site.post("confirm-message-received", received).status_code == 200
    assert message_in(poll(site, **{WAIT_HEADER: "wait=1"})) is None


def test_another_site_cannot_confirm_a_request(federation, site):
    asked, other = ask(federation, site), federation.site("b")
    received = ConfirmMessageReceivedRequest(
        node=Node(node_id=other.activate()), run_id=federation.link.run_id, message_object_id=asked
    )
    other.post("confirm-message-received", received)
    assert message_in(poll(site, **WAIT)) == asked


def test_a_revocation_ends_a_poll_that_waits(federation, site):
    began = time.monotonic()
    thread = in_the_meantime(federation, lambda: federation.roll.revoked.add("a"))
    response = poll(site, **WAIT)
    thread.join()
    assert response.status_code == 403
    assert "revoked" in response.text
    assert time.monotonic() - began < 4


def test_a_waiting_site_is_noted_as_there(federation, site):
    before = len(federation.contacts)
    poll(site, **WAIT)
    assert len(federation.contacts) - before >= 3  # its request, at once, and after two seconds


def test_at_the_end_all_polls_are_answered(federation, site):
    began = time.monotonic()
    thread = in_the_meantime(federation, federation.link.close)
    assert message_in(poll(site, **WAIT)) is None
    thread.join()
    assert time.monotonic() - began < 3


def test_a_poll_whose_connection_is_lost_leaves_the_request(federation, site):
    raw = site.connect()
    body = PullMessagesRequest(node=Node(node_id=site.node_id)).SerializeToString()
    headers = {**site.signed_headers(), **WAIT, "host": "x", "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw.sendall(f"POST /v1/fleet/pull-messages HTTP/1.1\r\n{head}\r\n".encode() + body)
    while not len(federation.link.polls):
        time.sleep(0.01)
    raw.close()
    deadline = time.monotonic() + 3
    while len(federation.link.polls):
        assert time.monotonic() < deadline, "the poll still waits"
        time.sleep(0.01)
    asked = ask(federation, site)
    assert message_in(poll(site)) == asked
