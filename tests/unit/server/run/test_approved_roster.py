"""The approved sites of a federation: late, silent, refusing, revoked, and others than they say."""

import threading

import pytest
from flwr.app import Error, Message
from tests.unit.server.sites import (
    NAMES,
    NODES,
    Scripted,
    Sites,
    description,
    final,
    run,
    with_federation,
    with_stages,
)

from mamfed_common.errors import RunError
from mamfed_common.protocol.messages import pack, unpack_body
from mamfed_common.protocol.tasks import Query, RefusalCode, TrainReport, TrainTask
from mamfed_server.run import approved_roster, requests
from mamfed_server.run.requests import StopRequested
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.folder import RunFolder

ADA, BEA, CLEO = NODES.values()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(requests, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(requests, "AGAIN_SECONDS", 0.03)


@pytest.fixture
def plan(tiny_plan):
    return with_federation(tiny_plan, join_seconds=0.2, offline_seconds=0.3)


def federate(sites, plan, path, transport=None, **job):
    """Run a federation of the three sites, as a server does."""
    defaults = {"names": lambda: NODES, "min_sites": 3, "resume": True, "query_again_seconds": 0.05}
    return run(sites, plan, path, transport or Scripted(sites), **(defaults | job))


def events(folder, kind):
    return [event for event in read_events(folder.path) if event["event"] == kind]


def fault(code):
    return lambda message: Message(Error(code, "SECRET words"), reply_to=message)


def test_a_federation_ends_with_the_bits_of_a_simulation(tmp_path, plan):
    folder = federate(Sites(), plan, tmp_path / "federation")
    assert final(folder) == final(run(Sites(), plan, tmp_path / "simulation"))
    assert [event["site"] for event in events(folder, "described")] == list(NAMES)
    assert folder.read_summary()["warnings"] == []


def test_every_order_carries_the_plans_signature(tmp_path, plan):
    signatures = set()

    class Noting(Scripted):
        def push(self, node_id, message_type, content, ttl_seconds):
            text = content["body"]["json"]
            assert '"signature":"signed"' in text
            signatures.add(message_type)
            return super().push(node_id, message_type, content, ttl_seconds)

    sites = Sites()
    federate(sites, plan, tmp_path / "run", Noting(sites), signature="signed")
    assert signatures == {"query", "train", "evaluate"}
    query = Query(plan=plan, signature="signed")
    assert unpack_body(pack(query), Query) == query


def test_the_start_waits_for_enough_sites_and_says_for_whom(tmp_path, plan):
    sites = Sites()
    transport = Scripted(sites)
    transport.away = {BEA, CLEO}
    waited = []

    def on_event(event):
        if event["event"] == "waiting":
            waited.append((event["need"], event["ready"], event["missing"]))
            if event["ready"] == ["ada"]:
                transport.away = set()

    folder = federate(sites, plan, tmp_path / "run", transport, on_event=on_event)
    gone = {"bea": "not connected", "cleo": "not connected"}
    assert (3, ["ada"], gone) in waited
    assert [set(record.accepted) for record in folder.rounds()] == [set(NAMES)] * 3
    assert {event["site"] for event in events(folder, "came")} == set(NAMES)


def test_with_enough_sites_there_the_others_are_waited_for_a_while(tmp_path, plan):
    sites = Sites()
    transport = Scripted(sites)
    transport.away = {BEA}
    folder = federate(sites, plan, tmp_path / "run", transport, min_sites=2)
    assert [record.expected for record in folder.rounds()] == [("ada", "cleo")] * 3
    missing = [event["missing"] for event in events(folder, "waiting")]
    assert {"bea": "not connected"} in missing


def test_a_site_that_comes_later_is_welcomed_in_the_next_round(tmp_path, plan):
    sites = Sites()
    transport = Scripted(sites)
    transport.away = {BEA}

    def on_round(record):
        transport.away = set()

    folder = federate(sites, plan, tmp_path / "run", transport, min_sites=2, on_round=on_round)
    expected = [record.expected for record in folder.rounds()]
    assert expected == [("ada", "cleo"), NAMES, NAMES]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (RefusalCode.PLAN_NOT_APPROVED, "the site has not approved this plan yet"),
        (RefusalCode.NOT_AT_THIS_HOUR, "the site does not train at this hour"),
    ],
)
def test_a_site_that_refuses_is_asked_again_until_it_agrees(tmp_path, plan, code, reason):
    sites = Sites()
    sites.query_answer["bea"] = fault(code)

    def on_event(event):
        if sites.asked.count("bea") == 3:
            sites.query_answer.clear()
        if event["event"] == "waiting" and sites.asked.count("bea") > 1:
            assert event["missing"]["bea"] == reason

    calls = []

    def stopping():  # looked at often: approves after the third refusal
        calls.append(1)
        if sites.asked.count("bea") == 3:
            sites.query_answer.clear()
        return False

    folder = federate(sites, plan, tmp_path / "run", on_event=on_event, stopping=stopping)
    assert sites.asked.count("bea") == 4
    refusals = [(e["site"], e["reason"]) for e in events(folder, "not described")]
    assert refusals == [("bea", reason)], "said once, not at every refusal"
    assert "SECRET" not in (folder.path / "events.jsonl").read_text()
    assert set(folder.rounds()[0].accepted) == set(NAMES)


def test_a_site_that_calls_itself_by_another_name_does_not_take_part(tmp_path, plan):
    sites = Sites()
    sites.descriptions["bea"] = description("cleo")
    folder = federate(sites, plan, tmp_path / "run", min_sites=2)
    assert all(record.expected == ("ada", "cleo") for record in folder.rounds())
    (refusal,) = events(folder, "not described")
    assert refusal["site"] == "bea"
    assert "another name than its certificate" in refusal["reason"]


@pytest.mark.parametrize("count", [-1, 10**18])
def test_a_description_with_an_impossible_count_is_refused(tmp_path, plan, count):
    sites = Sites()
    impossible = {"images": {"benign": {"train": count}}}
    sites.descriptions["bea"] = description("bea").model_copy(update=impossible)
    folder = federate(sites, plan, tmp_path / "run", min_sites=2)
    assert all(record.expected == ("ada", "cleo") for record in folder.rounds())


def test_a_silent_newcomer_holds_up_one_round_only_and_only_shortly(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(approved_roster, "PATIENCE_SECONDS", 0.3)
    sites = Sites()
    transport = Scripted(sites)
    transport.silent = {BEA: {"query"}}
    folder = federate(sites, plan, tmp_path / "run", transport, min_sites=2)
    assert all(record.expected == ("ada", "cleo") for record in folder.rounds())
    assert transport.pushed.count((BEA, "query")) == 1
    assert transport._waiting == {}, "the question is withdrawn when the run ends"


def test_a_revoked_site_is_not_asked_in_the_next_round(tmp_path, plan):
    names = dict(NODES)
    folder = federate(
        Sites(),
        plan,
        tmp_path / "run",
        names=lambda: dict(names),
        min_sites=2,
        on_round=lambda record: names.pop("bea", None),
    )
    expected = [record.expected for record in folder.rounds()]
    assert expected == [NAMES, ("ada", "cleo"), ("ada", "cleo")]


def test_too_few_sites_left_fail_the_run(tmp_path, plan):
    names = dict(NODES)
    with pytest.raises(RunError, match="0 of 2 updates accepted, quorum is 3"):
        federate(
            Sites(),
            plan,
            tmp_path / "run",
            names=lambda: dict(names),
            on_round=lambda record: names.pop("bea", None),
        )
    folder = RunFolder(tmp_path / "run")
    assert folder.read_summary()["status"] == "failed"
    assert folder.checkpoint_path("latest").exists()


def test_a_site_with_a_new_key_describes_itself_again(tmp_path, tiny_plan):
    """Node 2 becomes node 3's: what was known of the old key is not believed of the new one."""
    plan = with_federation(tiny_plan, join_seconds=0, offline_seconds=0.1)
    names = {"ada": ADA, "bea": CLEO}
    sites = Sites()
    sites.descriptions["cleo"] = description("bea", benign=30, malignant=30)
    rounds = []

    def on_round(record):
        rounds.append(record)
        names["bea"] = BEA

    folder = federate(
        sites, plan, tmp_path / "run", names=lambda: dict(names), min_sites=1, on_round=on_round
    )
    assert sites.asked == ["ada", "cleo", "bea"]
    assert list(folder.rounds()[1].accepted) == ["ada", "bea"]


def test_a_site_whose_data_has_changed_is_asked_what_it_has_now(tmp_path, plan):
    sites = Sites()

    def train(message, task: TrainTask, state):
        used = description("bea", benign=25, malignant=25).images_used(task.plan, task.stage)
        return Message(pack(TrainReport(num_examples=used, loss=1), state), reply_to=message)

    sites.train_answer["bea"] = train

    def on_round(record):
        sites.descriptions["bea"] = description("bea", benign=25, malignant=25)

    folder = federate(sites, plan, tmp_path / "run", min_sites=2, on_round=on_round)
    first, second, _ = folder.rounds()
    assert first.refused == {"bea": "claims 25 benign examples but declared 20"}
    assert second.accepted["bea"].num_examples == {"malignant": 25, "benign": 25}


def test_a_server_that_restarts_asks_its_sites_anew_and_ends_with_the_same_bits(tmp_path, plan):
    class Died(BaseException):
        pass

    def die(record):
        raise Died

    with pytest.raises(Died):
        federate(Sites(), plan, tmp_path / "run", on_round=die)
    sites = Sites()
    folder = federate(sites, plan, tmp_path / "run")
    assert sites.asked == ["ada", "bea", "cleo"]
    assert final(folder) == final(run(Sites(), plan, tmp_path / "simulation"))


def test_a_server_that_restarts_waits_until_enough_sites_are_connected_again(tmp_path, plan):
    strict = with_federation(plan, join_seconds=0, offline_seconds=0)
    sites = Sites()
    with pytest.raises(StopRequested):
        federate(sites, strict, tmp_path / "run", stopping=lambda: len(sites.trained) >= 3)
    again = Sites()
    transport = Scripted(again)
    transport.away = {ADA, CLEO}
    timer = threading.Timer(0.2, transport.away.clear)
    timer.start()
    folder = federate(again, strict, tmp_path / "run", transport)
    assert [set(record.accepted) for record in folder.rounds()] == [set(NAMES)] * 3


def test_a_plan_with_a_floor_below_three_is_warned_of(tmp_path, plan):
    folder = federate(Sites(), plan, tmp_path / "run", min_sites=2)
    (warning,) = folder.read_summary()["warnings"]
    assert warning == (
        "min_sites is 2: an average over 2 sites shows each of them what the others sent"
    )


def test_a_stage_that_has_no_site_yet_is_warned_of_while_there_is_time(tmp_path, plan):
    sites = Sites()
    sites.descriptions = {site: description(site, malignant=0) for site in NAMES}
    with pytest.raises(RunError, match="finetuning round 1: 0 of 0"):
        federate(sites, plan, tmp_path / "run")
    summary = RunFolder(tmp_path / "run").read_summary()
    assert any("finetuning: no site has a usable" in warning for warning in summary["warnings"])
    assert summary["rounds"] == 2


def test_the_wait_can_be_stopped(tmp_path, plan):
    sites = Sites()
    transport = Scripted(sites)
    transport.away = set(NODES.values())
    looks = iter(range(5))
    with pytest.raises(StopRequested):
        federate(
            sites,
            plan,
            tmp_path / "run",
            transport,
            stopping=lambda: next(looks, None) is None,
        )
    assert RunFolder(tmp_path / "run").read_summary()["status"] == "stopped"


def test_the_quorum_counts_where_it_is_above_the_floor(tmp_path, plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(2, "x"), reply_to=message)
    with pytest.raises(RunError, match="2 of 3 updates accepted, quorum is 3"):
        federate(sites, with_stages(plan, quorum=3), tmp_path / "run", min_sites=1)
