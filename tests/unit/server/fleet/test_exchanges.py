"""What a node may read and answer, and that all of it is freed."""

import hashlib
import json

import pytest

from mamfed_server.fleet import exchanges
from mamfed_server.fleet.assembly import ReplyTooLargeError, assemble
from mamfed_server.fleet.exchanges import Exchanges

NORTH, SOUTH = 1, 2
ASKED, OTHER = "a" * 64, "b" * 64
REPLY = "c" * 64


def part(text):
    content = text.encode()
    return hashlib.sha256(content).hexdigest(), content


@pytest.fixture
def held():
    made = Exchanges(1000)
    made.begin(ASKED, NORTH, [ASKED, "shared"])
    made.begin(OTHER, SOUTH, [OTHER, "shared"])
    return made


def test_a_node_reads_what_it_was_asked_and_no_more(held):
    assert held.may_read(NORTH, ASKED)
    assert held.may_read(NORTH, "shared")
    assert not held.may_read(NORTH, OTHER)
    held.end(ASKED)
    assert not held.may_read(NORTH, "shared")
    assert held.may_read(SOUTH, "shared")


def test_a_node_answers_what_it_was_asked_once(held):
    name, content = part("one")
    session, missing = held.begin_reply(NORTH, ASKED, REPLY, objects=[name])
    assert missing == [name]
    assert held.begin_reply(NORTH, ASKED, REPLY, objects=[name]) == (session, missing)
    assert held.begin_reply(NORTH, ASKED, OTHER, objects=[name]) is None
    assert held.begin_reply(NORTH, OTHER, REPLY, objects=[name]) is None
    assert held.begin_reply(NORTH, "d" * 64, REPLY, objects=[name]) is None
    assert not held.store(SOUTH, session, name, content)
    assert not held.store(NORTH, session, name, b"two")
    assert not held.store(NORTH, "", name, content)
    assert held.reply(ASKED).contents is None
    assert held.store(NORTH, session, name, content)
    assert held.store(NORTH, session, name, content)
    assert held.reply(ASKED).contents == {name: content}


def test_all_of_a_reply_is_freed_with_its_request(held):
    name, content = part("one")
    session, _ = held.begin_reply(NORTH, ASKED, REPLY, objects=[name, *map(str, range(100))])
    held.store(NORTH, session, name, content)
    assert held.held_bytes() == 3
    held.end(ASKED)
    held.end(ASKED)
    assert held.held_bytes() == 0
    assert len(held) == 1
    assert not held._by_session
    assert not held.store(NORTH, session, name, content)


def test_a_quota_starts_anew_with_a_request_only(held):
    assert held.count(NORTH, 600)
    held.begin_reply(NORTH, ASKED, REPLY, objects=["x"])
    assert not held.count(NORTH, 600)
    assert held.count(SOUTH, 600)
    held.begin("e" * 64, NORTH, [])
    assert held.count(NORTH, 600)


def test_a_reply_whose_parts_do_not_come_is_lost():
    now = [0.0]
    held = Exchanges(1000, lambda: now[0])
    held.begin(ASKED, NORTH, [])
    name, content = part("one")
    session, _ = held.begin_reply(NORTH, ASKED, REPLY, objects=[name, "x"])
    now[0] = exchanges.ARRIVAL_SECONDS
    held.store(NORTH, session, name, content)
    now[0] += exchanges.ARRIVAL_SECONDS
    assert not held.reply(ASKED).is_lost
    now[0] += 1
    assert held.reply(ASKED).is_lost


def test_an_array_that_names_one_part_again_and_again_is_not_assembled():
    name, content = part("ArrayChunk  1000\0" + "x" * 1000)
    body = json.dumps(
        {"dtype": "uint8", "shape": [1], "stype": "s", "arraychunk_ids": [0] * 100_000}
    )
    array, deflated = part(f"Array {name} {len(body)}\0{body}")
    with pytest.raises(ReplyTooLargeError):
        assemble(array, {name: content, array: deflated}, 10_000_000)


def test_bodies_larger_than_any_are_not_assembled():
    name, content = part("ConfigRecord  6000000\0" + "x" * 6_000_000)
    with pytest.raises(ReplyTooLargeError):
        assemble(name, {name: content}, 2**30)
