"""The contract with Flower's private parts, and messages through its state."""

import gc
import inspect

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from safetensors.torch import load
from tests.unit.server.certificates import new_key, public_pem

from mamfed_common.errors import LinkError, SetupError
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.flower_compat import check_flower_parts
from mamfed_common.protocol.messages import pack, unpack_body, wire_bytes
from mamfed_common.protocol.tasks import Query
from mamfed_server.fleet import link_transport, superlink
from mamfed_server.fleet.fleet_requests import key_of
from mamfed_server.fleet.flower_compat import PARTS, InMemoryLinkState
from mamfed_server.fleet.link_transport import LinkTransport
from mamfed_server.fleet.superlink import SuperLink
from mamfed_server.run.transport import TOO_LARGE, UNREADABLE

MEGABYTE = 1 << 20


@pytest.fixture
def link():
    made = SuperLink(MEGABYTE)
    yield made
    made.close()


@pytest.fixture
def node(link):
    node_id = link.node_of(public_pem(new_key()))
    link.welcome_back(node_id)
    link.state.activate_node(node_id, 30)
    return node_id


class Site:
    """What Flower's Fleet API does for a node, without HTTP."""

    def __init__(self, link, node_id):
        self.link, self.state, self.node_id = link, link.state, node_id

    def receive(self):
        (stub,) = self.state.get_message_ins(self.node_id, 1)
        tree = self.state.object_store.get_object_tree(stub.metadata.message_id)
        contents = {
            part.object_id: self.state.get_object(self.link.run_id, part.object_id)
            for part in iterate_object_tree(tree)
        }
        message = inflate_object_from_contents(stub.metadata.message_id, contents)
        message.metadata.__dict__["_message_id"] = stub.metadata.message_id
        self.state.object_store.delete(stub.metadata.message_id)
        return message

    def answer(self, message, content, *, parts=None):
        reply = Message(content, reply_to=message)
        objects = get_all_nested_objects(reply)
        begun = self.link.exchanges.begin_reply(
            self.node_id,
            message.metadata.message_id,
            reply.object_id,
            objects=objects,
        )
        session, missing = begun or ("", [])
        for object_id in missing[:parts]:
            content = objects[object_id].deflate()
            assert self.link.exchanges.store(self.node_id, session, object_id, content)
        return len(missing)


def request(size=1000):
    return pack(Query(plan=TrainingPlan()), {"a": torch.arange(float(size))})


def test_flower_has_all_the_parts_that_are_called():
    check_flower_parts(PARTS)


def test_a_part_that_flower_moved_is_named(monkeypatch):
    def create_run(fab_id, bundle_version):
        raise AssertionError

    monkeypatch.setattr(InMemoryLinkState, "create_run", create_run)
    with pytest.raises(SetupError, match=r"create_run has no parameter 'fab_hash'"):
        SuperLink()


def test_every_state_method_that_is_called_is_in_the_contract():
    source = inspect.getsource(superlink) + inspect.getsource(link_transport)
    names = {name.rpartition(".")[2] for _, name, _ in PARTS}
    called = {
        name
        for name, _ in inspect.getmembers(InMemoryLinkState, inspect.isfunction)
        if f"state.{name}(" in source
    }
    assert called - {"get_object", "get_run_info"} <= names


def test_a_flower_outside_the_range_is_refused(monkeypatch):
    monkeypatch.setattr("mamfed_common.protocol.versions.flower_version", lambda: "1.43.0")
    with pytest.raises(SetupError, match=r"found Flower 1\.43\.0, expected"):
        SuperLink()


def test_a_request_and_its_answer_arrive_bit_for_bit_and_leave_nothing(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    sent = request()
    message_id = transport.push(node, "train", sent, 60.0)
    assert transport.pull(message_id) is None
    received = site.receive()
    assert unpack_body(received.content, Query).plan == TrainingPlan()
    site.answer(received, request(77))
    reply = transport.pull(message_id)
    assert torch.equal(load(reply.content["arrays"]["weights"].data)["a"], torch.arange(77.0))
    assert len(link.state.object_store) == 0
    assert link.state.num_message_ins() == link.state.num_message_res() == 0


def test_two_requests_with_the_same_weights_share_them(link, node):
    other = link.node_of(public_pem(new_key()))
    link.state.activate_node(other, 30)
    transport, content = LinkTransport(link), request(100_000)
    transport.push(node, "train", content, 60.0)
    once = len(link.state.object_store)
    transport.push(other, "train", content, 60.0)
    held = [entry.content for entry in link.state.object_store.store.values()]
    assert sum(map(len, held)) < 1.1 * wire_bytes(content)
    assert len(link.state.object_store) - once == 1  # the message itself


def test_an_answer_counts_only_when_all_of_it_came(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    site.answer(site.receive(), request(5), parts=1)
    assert transport.pull(message_id) is None


def test_a_late_answer_to_a_forgotten_request_is_dropped(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    received = site.receive()
    transport.forget([message_id])
    assert site.answer(received, request(5)) == 0
    assert len(link.state.object_store) == 0


def test_an_answer_that_came_is_dropped_when_it_is_forgotten(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    site.answer(site.receive(), request(5))
    transport.forget([message_id])
    assert len(link.state.object_store) == 0
    assert link.state.num_message_ins() == link.state.num_message_res() == 0


def test_an_answer_larger_than_allowed_is_refused_and_dropped(link, node):
    link.exchanges.max_bytes = 1000
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    site.answer(site.receive(), request(10_000))
    assert transport.pull(message_id).error.code == TOO_LARGE
    assert len(link.state.object_store) == 0


def test_an_answer_that_cannot_be_put_together_is_an_error(link, node, monkeypatch):
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    received = site.receive()
    monkeypatch.setattr(ConfigRecord, "deflate", lambda self: b"ConfigRecord  9\x00nonsense")
    site.answer(received, RecordDict({"body": ConfigRecord({"a": 1})}))
    monkeypatch.undo()
    assert transport.pull(message_id).error.code == UNREADABLE


def test_a_sites_error_comes_with_its_code(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    message_id = transport.push(node, "train", request(), 60.0)
    received = site.receive()
    link.exchanges.begin_reply(node, received.metadata.message_id, "0" * 64, error=103)
    assert transport.pull(message_id).error.code == 103


def test_a_node_that_connects_again_has_another_stamp(link, node):
    transport = LinkTransport(link)
    before = dict(transport.online())
    link.welcome_back(node)
    assert transport.online() == {}
    assert link.state.activate_node(node, 30)
    assert transport.online().keys() == before.keys()
    assert transport.online() != before


def test_a_site_keeps_its_node(link):
    key = public_pem(new_key())
    assert link.node_of(key) == link.node_of(key)


def test_two_hundred_rounds_leave_nothing_behind(link, node):
    transport, site = LinkTransport(link), Site(link, node)
    for _ in range(200):
        message_id = transport.push(node, "train", request(), 60.0)
        site.answer(site.receive(), request(50))
        assert transport.pull(message_id).has_content()
    gc.collect()
    assert len(link.state.object_store) == 0
    assert not transport._asked
    assert not len(link.exchanges)
    assert not link.state._object_push_sessions


def test_a_key_that_is_none_is_refused():
    with pytest.raises(LinkError, match="cannot be read"):
        key_of(b"!!!")
