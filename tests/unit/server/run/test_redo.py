"""A round below its floor is done again when sites come back, and never counts an update twice."""

import threading
import time
from dataclasses import replace

import pytest
from flwr.app import Error, Message
from tests.unit.server.sites import (
    NAMES,
    NODES,
    Scripted,
    Sites,
    final,
    run,
    with_federation,
    with_stages,
)

from mamfed_common.errors import RunError
from mamfed_common.protocol.tasks import RefusalCode
from mamfed_common.runtime.health import Health
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.run import redo, requests
from mamfed_server.run.redo import Redo
from mamfed_server.run.state import RunState, run_status_of
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.service.status_file import StatusFile, health_of
from mamfed_server.settings import ServerHome

ADA, BEA, CLEO = NODES.values()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(requests, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(requests, "AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(redo, "LONGEST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def plan(tiny_plan):
    return with_federation(tiny_plan, join_seconds=0.1, offline_seconds=0.1)


@pytest.fixture
def undisturbed(tmp_path, plan):
    return final(run(Sites(), plan, tmp_path / "undisturbed"))


def federate(sites, plan, path, transport=None, **job):
    """Run a federation of the three sites with patience."""
    defaults = {
        "names": lambda: NODES,
        "min_sites": 3,
        "resume": True,
        "query_again_seconds": 0.03,
        "patience_seconds": 60.0,
    }
    return run(sites, plan, path, transport or Scripted(sites), **(defaults | job))


def kinds(folder):
    return [event["event"] for event in read_events(folder.path)]


def leaves_at(transport, sites, turn, node, back_after=0.3):
    """Let a node vanish with the request of its ``turn``-th training, and come back later."""
    gone = []

    def on_pull(asked, message):
        training = message.metadata.message_type == "train"
        if training and asked == node and len(sites.trained) >= turn and not gone:
            gone.append(asked)
            transport.away.add(node)
            transport.restart(node)
            threading.Timer(back_after, transport.away.discard, [node]).start()

    transport.on_pull = on_pull


@pytest.mark.parametrize("node", [ADA, BEA, CLEO])
@pytest.mark.parametrize("turn", [0, 4, 6])
def test_a_site_that_misses_a_round_and_returns_leaves_the_bits_as_they_are(
    tmp_path, plan, undisturbed, node, turn
):
    sites = Sites()
    transport = Scripted(sites)
    leaves_at(transport, sites, turn, node)
    folder = federate(sites, plan, tmp_path / "run", transport)
    assert final(folder) == undisturbed
    assert kinds(folder).count("below the floor") == 1
    rounds = folder.rounds()
    assert [r.server_round for r in rounds] == [1, 1, 2], "an attempt that failed is no round"
    assert all(set(record.accepted) == set(NAMES) for record in rounds)
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"]) == ("finished", True)
    assert any("the round is done again" in warning for warning in summary["warnings"])


def test_the_status_says_how_many_sites_are_missing_and_since_when(tmp_path, plan):
    sites = Sites()
    transport = Scripted(sites)
    leaves_at(transport, sites, 4, BEA)
    said = []

    def on_event(event):
        if event["event"] == "waiting" and event["ready"]:
            said.append(event)

    folder = federate(sites, plan, tmp_path / "run", transport, on_event=on_event)
    event = next(e for e in said if "bea" in e["missing"] and len(e["ready"]) == 2)
    assert event["missing"] == {"bea": "not connected"}
    assert event["since"]
    (folder.path / "summary.json").unlink()
    status = run_status_of(folder.path)
    at = list(status.events).index(event)
    then = replace(status, state=RunState.RUNNING, events=status.events[: at + 1])
    assert then.under_way is None, "a round that waits to be done again is not under way"
    assert then.doing().startswith("waiting for 1 of 3 sites since ")
    assert "missing: bea (not connected)" in then.doing()


def test_an_answer_after_the_deadline_is_not_counted(tmp_path, plan):
    """Cleo does not answer the first attempt in time; the second one asks anew."""
    sites = Sites()
    transport = Scripted(sites)
    transport.silent = {CLEO: {"train"}}
    short = with_stages(plan, deadline_seconds=0.4, min_deadline_seconds=0.3)

    def on_event(event):
        if event["event"] == "below the floor":
            transport.silent = {}

    folder = federate(sites, short, tmp_path / "run", transport, on_event=on_event)
    assert [set(r.accepted) for r in folder.rounds()] == [set(NAMES)] * 3
    assert len(transport.forgotten) == 1, "the request of the first attempt is withdrawn"
    assert sites.trained.count(("cleo", "pretraining", 1)) == 1
    assert sites.trained.count(("ada", "pretraining", 1)) == 2
    assert final(folder) == final(run(Sites(), short, tmp_path / "whole"))


def test_a_site_that_never_came_does_not_delay_the_round_again(tmp_path, tiny_plan):
    """Four are approved, of whom one never comes; one of the others misses a round."""
    plan = with_federation(tiny_plan, join_seconds=3, offline_seconds=0.1)
    sites = Sites()
    transport = Scripted(sites)
    leaves_at(transport, sites, 4, BEA)
    times = {}

    def on_event(event):
        times.setdefault(event["event"], []).append(time.monotonic())

    names = {**NODES, "dora": 99}
    federate(sites, plan, tmp_path / "run", transport, names=lambda: names, on_event=on_event)
    (failed,) = times["below the floor"]
    again = next(at for at in times["round"] if at > failed)
    assert again - failed < 2


def test_without_patience_a_round_below_the_floor_ends_the_run(tmp_path, plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(2, "x"), reply_to=message)
    with pytest.raises(RunError, match="2 of 3 updates accepted, quorum is 3"):
        federate(sites, plan, tmp_path / "run", patience_seconds=0.0)


def test_after_its_patience_the_run_pauses_says_so_and_goes_on_when_the_site_is_back(
    tmp_path, plan, undisturbed
):
    sites = Sites()
    transport = Scripted(sites)
    leaves_at(transport, sites, 4, BEA, back_after=60)
    home = ServerHome(tmp_path)
    status = StatusFile(tmp_path)
    health = {}

    def on_event(event):
        status.event(event)
        health[event["event"]] = health_of(home)
        if event["event"] == "paused":
            transport.away.discard(BEA)

    with exclusive_lock(home.lock, "a server"):
        folder = federate(
            sites, plan, tmp_path / "run", transport, on_event=on_event, patience_seconds=0.3
        )
    assert final(folder) == undisturbed
    assert kinds(folder).index("paused") < len(kinds(folder)) - 3
    assert health["paused"] is Health.PAUSED
    assert health["finished"] is Health.WORKING


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (RefusalCode.PLAN_REFUSED, "somebody at the site has refused this plan"),
        (RefusalCode.PLAN_OUTSIDE_POLICY, "the site's policy does not allow this plan"),
    ],
)
def test_waiting_for_a_site_that_refuses_the_plan_for_good_ends_the_run_by_name(
    tmp_path, plan, code, reason
):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(code, "x"), reply_to=message)
    with pytest.raises(RunError, match="waiting is of no use") as caught:
        federate(sites, plan, tmp_path / "run")
    assert f"bea: {reason}" in str(caught.value)
    assert RunFolder(tmp_path / "run").read_summary()["status"] == "failed"


def test_a_site_that_is_revoked_while_it_is_needed_ends_the_run(tmp_path, plan):
    names = dict(NODES)
    with pytest.raises(RunError, match="of 2 approved sites 2 can still take part"):
        federate(
            Sites(),
            plan,
            tmp_path / "run",
            names=lambda: dict(names),
            on_round=lambda record: names.pop("bea", None),
        )


def test_a_passing_refusal_is_waited_for(tmp_path, plan, undisturbed):
    sites = Sites()
    refusals = []

    def refuse(message, task, state):
        refusals.append(task.server_round)
        if len(refusals) == 3:
            sites.train_answer.clear()
        return Message(Error(RefusalCode.NOT_AT_THIS_HOUR, "x"), reply_to=message)

    sites.train_answer["bea"] = refuse
    folder = federate(sites, plan, tmp_path / "run")
    assert len(refusals) == 3
    assert final(folder) == undisturbed


def test_attempts_grow_rarer_while_nothing_changes_and_not_when_a_site_is_back(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(redo, "LONGEST_PAUSE_SECONDS", 600.0)
    again = Redo(86_400, 15)
    pauses = []
    for _ in range(8):
        again.failed(("a", "b"))
        failed = now[0]
        while not again.may_begin(("a", "b")):
            now[0] += 5
        pauses.append(now[0] - failed)
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    again.failed(("a", "b"))
    now[0] += 15
    assert not again.may_begin(("a", "b"))
    assert again.may_begin(("a", "b", "c"))


def test_after_the_patience_nothing_is_tried_until_something_changes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    again = Redo(60, 15)
    again.failed(("a",))
    now[0] += 59
    again.check_patience()
    assert not again.paused
    now[0] += 1
    again.check_patience()
    assert again.paused
    now[0] += 10_000
    assert not again.may_begin(("a",))
    assert again.may_begin(("a", "b"))
