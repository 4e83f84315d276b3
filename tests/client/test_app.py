"""The real ClientApp on a real folder, asked by Flower's own messages."""

import logging

import pytest
from flwr.app import Message, RecordDict

from mamfed_client.app import make_client_app
from mamfed_client.site import Site
from mamfed_common.metrics import SiteScore
from mamfed_common.plan import Stage
from mamfed_common.state import state_of, state_sha256
from mamfed_common.subtraction import build_network
from mamfed_common.weights import (
    EvaluateTask,
    Query,
    SiteDescription,
    TrainTask,
    pack,
    unpack_body,
    unpack_update,
)
from mamfed_simulations.grid import InProcessGrid


@pytest.fixture
def site(folder, tmp_path):
    for number in range(6):
        folder.malignant(f"SECRET-M{number}").benign(f"SECRET-B{number}")
    return Site("here", (("here", folder.write()),), tmp_path / "cache")


@pytest.fixture
def ask(site):
    app = make_client_app(lambda context: site, device="cpu", threads=1)
    grid = InProcessGrid(app, 1)

    def send(kind: str, content: RecordDict) -> Message:
        message = Message(content, dst_node_id=1, message_type=kind)
        (reply,) = grid.send_and_receive([message])
        return reply

    return send


def test_a_query_is_answered_with_counts_only(ask, tiny_plan):
    reply = ask("query", pack(Query(plan=tiny_plan)))
    description = unpack_body(reply.content, SiteDescription)
    assert description.site == "here"
    assert description.training_images(Stage.PRETRAINING) == 4
    assert "SECRET" not in str(reply.content)


def test_training_returns_new_weights_and_the_declared_number(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    description = unpack_body(ask("query", pack(Query(plan=tiny_plan))).content, SiteDescription)
    for stage in Stage:
        task = TrainTask(plan=tiny_plan, stage=stage, server_round=1)
        update = unpack_update(ask("train", pack(task, state)).content, state)
        assert state_sha256(update.state) != state_sha256(state)
        assert update.report.num_examples == description.training_images(stage)


def test_evaluation_returns_means_and_counts_only(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    reply = ask("evaluate", pack(EvaluateTask(plan=tiny_plan, part="test"), state))
    score = unpack_body(reply.content, SiteScore)
    assert score.images == 1
    assert score.images_without_malignancy == 1
    assert set(reply.content) == {"body"}


def test_what_went_wrong_stays_at_the_site(ask, site, tiny_plan, caplog):
    (site.cohorts[0][1] / "labels.csv").write_text("nonsense of patient SECRET-M1\n")
    with caplog.at_level(logging.ERROR):
        reply = ask("query", pack(Query(plan=tiny_plan)))
    assert reply.has_error()
    assert reply.error.code == 2
    assert reply.error.reason == "see the site's log"
    assert "labels.csv" in caplog.text


def test_a_message_that_is_no_task_is_an_error_and_not_a_crash(ask):
    assert ask("train", RecordDict()).error.code == 2


def test_weights_of_another_network_are_refused_by_the_site(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    del state["subtraction.gain"]
    task = TrainTask(plan=tiny_plan, stage=Stage.PRETRAINING, server_round=1)
    assert ask("train", pack(task, state)).has_error()
