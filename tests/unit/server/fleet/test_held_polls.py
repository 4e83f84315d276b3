"""A waiting node's poll is answered when a request to it is stored, and never takes one in vain."""

import asyncio
import threading
import time

import pytest

from mamfed_server.fleet.denial import RequestDenied
from mamfed_server.fleet.held_polls import Caller, HeldPolls

NODE = 7


@pytest.fixture
def asked():
    """Nodes to which there is a request."""
    return set()


@pytest.fixture
def polls(asked):
    return HeldPolls(asked.__contains__, look_seconds=0.01)


def caller(seconds=5.0, gone=None, look=lambda: None):
    return Caller(seconds, gone or asyncio.Event().wait, look)


async def waiting(polls, who):
    """Begin a poll; return it once it waits."""
    task = asyncio.create_task(polls.wait(NODE, who))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(polls) == 1
    return task


def test_a_poll_is_answered_when_there_is_a_request(polls):
    async def scene():
        poll = await waiting(polls, caller())
        threading.Thread(target=polls.wake, args=(NODE,)).start()
        assert await asyncio.wait_for(poll, 2) is True
        assert len(polls) == 0

    asyncio.run(scene())


def test_a_poll_does_not_wait_if_there_is_a_request_or_no_time(polls, asked):
    async def scene():
        assert await asyncio.wait_for(polls.wait(NODE, caller(0)), 1) is True
        asked.add(NODE)
        assert await asyncio.wait_for(polls.wait(NODE, caller()), 1) is True
        assert len(polls) == 0

    asyncio.run(scene())


def test_a_request_to_another_node_answers_nobody(polls):
    async def scene():
        poll = await waiting(polls, caller(0.3))
        polls.wake(NODE + 1)
        began = time.monotonic()
        assert await poll is True
        assert time.monotonic() - began > 0.2

    asyncio.run(scene())


@pytest.mark.parametrize("how", ["gone", "dropped", "again"])
def test_nobody_waits_for_the_answer_of_a_poll_that_is_over(polls, how):
    async def scene():
        gone = asyncio.Event()
        poll = await waiting(polls, caller(gone=gone.wait))
        if how == "gone":
            gone.set()
        elif how == "dropped":
            polls.drop(NODE)
        else:
            newer = asyncio.create_task(polls.wait(NODE, caller()))
        assert await asyncio.wait_for(poll, 2) is False
        if how == "again":
            assert len(polls) == 1
            polls.wake(NODE)
            assert await asyncio.wait_for(newer, 2) is True

    asyncio.run(scene())


def test_a_site_that_may_no_longer_wait_is_denied(polls):
    def look():
        raise RequestDenied(403, "revoked")

    async def scene():
        with pytest.raises(RequestDenied, match="revoked"):
            await asyncio.wait_for(polls.wait(NODE, caller(look=look)), 2)
        assert len(polls) == 0

    asyncio.run(scene())


def test_waiting_sites_are_looked_at_until_none_waits(polls):
    looks = []

    async def scene():
        for _ in range(2):  # it begins anew with the next poll
            before = len(looks)
            await polls.wait(NODE, caller(0.3, look=lambda: looks.append(1)))
            assert len(looks) - before > 2
            await asyncio.sleep(0.05)

    asyncio.run(scene())


def test_when_they_are_closed_all_are_answered(polls):
    async def scene():
        poll = await waiting(polls, caller())
        polls.close()
        assert await asyncio.wait_for(poll, 2) is True
        assert await asyncio.wait_for(polls.wait(NODE, caller()), 1) is True

    asyncio.run(scene())
