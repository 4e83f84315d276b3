"""Requests over transports that lose, delay, repeat and restart."""

import pytest
from tests.unit.server.sites import (
    IMAGES,
    NAMES,
    NODES,
    Scripted,
    Sites,
    final,
    run,
    with_federation,
    with_stages,
)

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import RunError
from mamfed_server.run import requests
from mamfed_server.run.deadlines import deadline_seconds, training_deadlines
from mamfed_server.run.requests import StopRequested
from mamfed_server.run_folder.event_log import read_events
from mamfed_server.run_folder.folder import RunFolder

ADA, BEA, CLEO = NODES.values()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(requests, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(requests, "AGAIN_SECONDS", 0.03)


@pytest.fixture
def tiny_plan(tiny_plan):
    """A lost request fails the test rather than keeping it for twelve hours."""
    return with_stages(tiny_plan, deadline_seconds=30)


@pytest.fixture
def undisturbed(tmp_path, tiny_plan):
    return final(run(Sites(), tiny_plan, tmp_path / "undisturbed"))


def disturbed(tmp_path, plan, change, **job):
    """Run over a transport that a test has changed; return it, the sites and the folder."""
    sites = Sites()
    transport = Scripted(sites)
    change(transport)
    return transport, sites, run(sites, plan, tmp_path / "run", transport, **job)


def again(folder):
    events = read_events(folder.path)
    return [(e["site"], e["reason"]) for e in events if e["event"] == "asked again"]


def refusals(folder):
    return [record.refused for record in folder.rounds()]


def test_the_order_of_arrival_changes_no_bit(tmp_path, tiny_plan, undisturbed):
    for number, delays in enumerate([{ADA: 5}, {ADA: 3, BEA: 6}, {BEA: 2}]):
        change = {"delays": delays}
        _, sites, folder = disturbed(
            tmp_path / str(number), tiny_plan, lambda t, c=change: t.__dict__.update(c)
        )
        assert final(folder) == undisturbed
        assert list(folder.rounds()[0].accepted) == list(NAMES)
    assert [site for site, *_ in sites.trained[:3]] == ["ada", "cleo", "bea"]


@pytest.mark.parametrize("window", [1, 2])
def test_no_more_requests_are_on_their_way_than_the_transport_takes(
    tmp_path, tiny_plan, undisturbed, window
):
    most = []

    def change(transport):
        transport.window, transport.delays = window, {ADA: 2, CLEO: 1}
        transport.errors[BEA].extend([4, 8])
        transport.on_pull = lambda node, message: most.append(len(transport._waiting))

    _, _, folder = disturbed(tmp_path, tiny_plan, change)
    assert final(folder) == undisturbed
    assert max(most) == window


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_request_that_a_node_lost_is_sent_again(tmp_path, tiny_plan, undisturbed, code):
    _, _, folder = disturbed(tmp_path, tiny_plan, lambda t: t.errors[BEA].extend([code] * 6))
    assert final(folder) == undisturbed
    assert again(folder) == [("bea", "its node lost the request")] * 6


def test_a_worker_that_died_twice_is_asked_a_third_time(tmp_path, tiny_plan, undisturbed):
    _, _, folder = disturbed(tmp_path, tiny_plan, lambda t: t.errors[BEA].extend([8, 8]))
    assert final(folder) == undisturbed
    assert again(folder) == [("bea", "its worker died")] * 2


def test_a_worker_that_died_three_times_is_left_out_of_the_round(tmp_path, tiny_plan):
    _, _, folder = disturbed(tmp_path, tiny_plan, lambda t: t.errors[BEA].extend([8, 8, 8]))
    assert refusals(folder) == [{"bea": "its worker died 3 times"}, {}, {}]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (2, "the site failed; see its own log"),
        (104, "the site does not train at this hour"),
        (1, "the site failed (Flower error 1)"),
        (999, "the site failed (Flower error 999)"),
    ],
)
def test_a_refusal_is_taken_at_its_word_for_this_round_only(tmp_path, tiny_plan, code, reason):
    transport, _, folder = disturbed(tmp_path, tiny_plan, lambda t: t.errors[BEA].append(code))
    assert refusals(folder) == [{"bea": reason}, {}, {}]
    assert transport.pushed.count((BEA, "train")) == 3
    text = "".join(p.read_text() for p in folder.path.glob("*.json*"))
    assert "SECRET" not in text


def test_a_node_that_restarts_in_the_middle_is_asked_again(tmp_path, tiny_plan, undisturbed):
    def change(transport):
        restarts = [CLEO, BEA]

        def on_pull(node, message):
            if message.metadata.message_type == "train" and node in restarts:
                restarts.remove(node)
                transport.restart(node)

        transport.on_pull = on_pull

    transport, _, folder = disturbed(tmp_path, tiny_plan, change)
    assert final(folder) == undisturbed
    assert sorted(again(folder)) == [
        ("bea", "its node restarted"),
        ("cleo", "its node restarted"),
    ]
    assert len(transport.forgotten) > 0
    assert folder.rounds()[0].bytes_sent == 5 / 3 * folder.rounds()[1].bytes_sent


def test_a_site_that_is_away_when_asked_is_asked_when_it_comes(tmp_path, tiny_plan, undisturbed):
    def change(transport):
        looks = iter(range(10**6))
        online = transport.online

        def late():
            transport.away = {BEA} if 5 < next(looks) < 15 else set()
            return online()

        transport.online = late

    _, _, folder = disturbed(tmp_path, tiny_plan, change)
    assert final(folder) == undisturbed


def test_a_site_that_stays_away_is_left_out_until_it_is_back(tmp_path, tiny_plan):
    plan = with_federation(tiny_plan, offline_seconds=0.1)
    transports = []

    def leave(transport):
        transports.append(transport)
        transport.silent = {BEA: {"train"}}

        def on_pull(node, message):
            if message.metadata.message_type == "train":
                transport.away = {BEA}

        transport.on_pull = on_pull

    def back(record):
        transports[0].silent, transports[0].away = {}, set()
        transports[0].on_pull = lambda node, message: None

    _, _, folder = disturbed(tmp_path, plan, leave, on_round=back)
    assert refusals(folder) == [{"bea": "offline for 0.1 seconds"}, {}, {}]
    assert "bea" not in folder.rounds()[0].durations
    assert folder.rounds()[0].answered == ("ada", "cleo")


def test_a_site_that_has_been_away_for_long_costs_the_next_rounds_no_time(tmp_path, tiny_plan):
    plan = with_federation(tiny_plan, offline_seconds=0.3)

    def change(transport):
        def on_pull(node, message):
            if message.metadata.message_type == "train":
                transport.away = {ADA}

        transport.silent = {ADA: {"train"}}
        transport.on_pull = on_pull

    transport, _, folder = disturbed(tmp_path, plan, change)
    assert refusals(folder) == [{"ada": "offline for 0.3 seconds"}] * 3
    assert folder.rounds()[0].seconds > 0.3
    assert transport.pushed.count((ADA, "train")) == 1


def test_a_late_answer_is_dropped(tmp_path, tiny_plan):
    """Bea's answer to round 1 comes in round 2: nobody asks for it any more."""
    plan = with_stages(tiny_plan, deadline_seconds=0.2)
    transports = []

    def change(transport):
        transports.append(transport)
        transport.silent = {BEA: {"train"}}

    def answer_from_now(record):
        transports[0].silent = {}

    transport, sites, folder = disturbed(tmp_path, plan, change, on_round=answer_from_now)
    assert refusals(folder) == [{"bea": "no answer within 0.2 seconds"}, {}, {}]
    assert folder.rounds()[0].durations["bea"] == 0.2
    assert sites.trained.count(("bea", "pretraining", 1)) == 0
    assert transport._waiting == {}


def test_a_transport_that_repeats_answers_changes_no_bit(tmp_path, tiny_plan, undisturbed):
    class Repeating(Scripted):
        def __init__(self, sites):
            super().__init__(sites)
            self.answers = {}

        def pull(self, message_id):
            if message_id not in self.answers:
                message = super().pull(message_id)
                if message is None:
                    return None
                self.answers[message_id] = message
            return self.answers[message_id]

    sites = Sites()
    folder = run(sites, tiny_plan, tmp_path / "run", Repeating(sites))
    assert final(folder) == undisturbed


def test_nothing_is_wanted_of_a_run_that_was_stopped(tmp_path, tiny_plan):
    sites, wanted = Sites(), []
    transport = Scripted(sites)
    transport.silent = {BEA: {"train"}}

    def stopping():
        return len(sites.trained) >= 2 and (wanted.append(1) or len(wanted) > 5)

    with pytest.raises(StopRequested) as caught:
        run(sites, tiny_plan, tmp_path / "run", transport, stopping=stopping)
    assert caught.value.exit_code == 0
    assert transport._waiting == {}
    summary = RunFolder(tmp_path / "run").read_summary()
    assert (summary["status"], summary["complete"]) == ("stopped", False)


def test_a_deadline_is_learned_within_the_plans_bounds(tiny_plan):
    plan = tiny_plan.finetuning.model_copy(
        update={"deadline_seconds": 1000.0, "min_deadline_seconds": 50.0}
    )
    assert deadline_seconds(plan, []) == 1000
    assert deadline_seconds(plan, [1.0]) == 50
    assert deadline_seconds(plan, [100.0]) == 300
    assert deadline_seconds(plan, [600.0]) == 1000
    # only the last three count, and of them the slowest
    assert deadline_seconds(plan, [300.0, 20.0, 40.0, 30.0]) == 120


def test_a_deadline_is_learned_from_the_rounds_of_the_same_stage(tmp_path, tiny_plan):
    plan = with_stages(tiny_plan, min_deadline_seconds=1e-3, deadline_seconds=500)
    _, _, folder = disturbed(tmp_path, plan, lambda t: None)
    records = [
        record.model_copy(update={"durations": {"ada": 10.0 * number}})
        for number, record in enumerate(folder.rounds(), start=1)
    ]
    stages = [record.stage for record in records]
    assert training_deadlines(plan, stages[0], records, ["ada"]) == {"ada": 30}
    assert training_deadlines(plan, stages[1], records, ["ada", "bea"]) == {"ada": 90, "bea": 500}
    first, second, third = folder.rounds()
    assert set(first.deadlines.values()) == set(second.deadlines.values()) == {500}
    assert all(0 < third.deadlines[site] < 500 for site in NAMES)


def test_a_site_that_became_slow_is_given_more_time_from_round_to_round(tmp_path, tiny_plan):
    finetuning = {**tiny_plan.finetuning.model_dump(), "rounds": 4}
    bounds = {"deadline_seconds": 1.0, "min_deadline_seconds": 0.1}
    transports = []

    def fall_silent(record):
        transports[0].silent = {BEA: {"train"}} if record.stage == "finetuning" else {}

    plan = tiny_plan.changed(finetuning=finetuning | bounds)
    _, _, folder = disturbed(tmp_path, plan, transports.append, on_round=fall_silent)
    unknown, learned, *slow = [r.deadlines["bea"] for r in folder.rounds()[1:]]
    assert unknown == 1
    # a round that ran out of time counts as that long, so the next is given three times as much
    assert slow[0] == min(1, round(3 * learned, 1))
    assert slow[1] == min(1, round(3 * slow[0], 1))


def test_an_example_count_is_what_the_site_declared(tmp_path, tiny_plan):
    _, _, folder = disturbed(tmp_path, tiny_plan, lambda t: None)
    found = {site: c.num_examples for site, c in folder.rounds()[0].accepted.items()}
    assert found == {site: {"benign": count} for site, count in IMAGES.items()}


def test_all_sites_away_fails_the_run_and_keeps_what_was_reached(tmp_path, tiny_plan):
    plan = with_federation(tiny_plan, offline_seconds=0.05)
    sites = Sites()
    transport = Scripted(sites)

    def on_round(record):
        transport.away = set(NODES.values())

    with pytest.raises(RunError, match="finetuning round 1: 0 of 3 updates"):
        run(sites, plan, tmp_path / "run", transport, on_round=on_round)
    folder = RunFolder(tmp_path / "run")
    assert load_checkpoint(folder.checkpoint_path("latest")).facts.stage == "pretraining"
    assert folder.read_summary()["status"] == "failed"
