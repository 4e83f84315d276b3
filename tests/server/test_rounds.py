"""The real ServerApp over the real in-process grid, with sites that misbehave one by one."""

import json
import math
import stat

import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import OutputError, RunError
from mamfed_common.metrics import SiteScore
from mamfed_common.state import State, state_of, state_sha256
from mamfed_common.subtraction import MalignancyNetwork
from mamfed_common.weights import (
    EvaluateTask,
    SiteDescription,
    TrainReport,
    TrainTask,
    pack,
    unpack_body,
    unpack_state,
)
from mamfed_server.app import Job, make_server_app
from mamfed_server.runs import RunFolder
from mamfed_simulations.grid import InProcessGrid

NAMES = ("ada", "bea", "cleo")
IMAGES = {"ada": 10, "bea": 20, "cleo": 30}


def description(site: str, *, benign: int | None = None, malignant: int | None = None):
    images = {
        "benign": {"train": IMAGES[site] if benign is None else benign},
        "malignant": {
            "train": IMAGES[site] if malignant is None else malignant,
            "val": 1,
            "test": 1,
        },
    }
    return SiteDescription(
        site=site, images=images, patients={}, rows=9, rejected={}, left_out={}, vendors={}
    )


def step(state: State, site: str) -> State:
    """Training that is easy to follow: add the site's number to every weight."""
    return {name: tensor + NAMES.index(site) for name, tensor in state.items()}


class Sites:
    """A ClientApp of three honest sites; tests replace single answers."""

    def __init__(self):
        self.train_answer = {}
        self.descriptions = {site: description(site) for site in NAMES}
        self.val_dice = {}

    def app(self) -> ClientApp:
        app = ClientApp()
        app.query()(self.query)
        app.train()(self.train)
        app.evaluate()(self.evaluate)
        return app

    def query(self, message: Message, context: Context) -> Message:
        return Message(pack(self.descriptions[self.name(context)]), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        site = self.name(context)
        task = unpack_body(message.content, TrainTask)
        expected = state_of(MalignancyNetwork(task.plan.network))
        state = step(unpack_state(message.content, expected), site)
        report = TrainReport(num_examples=IMAGES[site], loss=0.25)
        if site in self.train_answer:
            return self.train_answer[site](message, task, state)
        return Message(pack(report, state), reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        task = unpack_body(message.content, EvaluateTask)
        round_dice = self.val_dice.get(self.name(context), [0.5])
        dice = round_dice.pop(0) if task.part == "val" and len(round_dice) > 1 else round_dice[0]
        score = SiteScore(
            images=1,
            dice=dice,
            lesions=1,
            lesions_found=1,
            images_without_malignancy=0,
            false_positive_pixels=None,
        )
        return Message(pack(score), reply_to=message)

    @staticmethod
    def name(context: Context) -> str:
        return NAMES[context.node_config["partition-id"]]


def run(sites: Sites, plan, folder, **job):
    grid = InProcessGrid(sites.app(), len(NAMES))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    make_server_app(Job(plan=plan, folder=folder, num_nodes=len(NAMES), **job))(grid, context)
    return RunFolder(folder)


def with_quorum(plan, quorum):
    stages = {
        name: {**getattr(plan, name).model_dump(), "quorum": quorum}
        for name in ("pretraining", "finetuning")
    }
    return plan.changed(**stages)


def test_an_undisturbed_run_leaves_everything_in_its_folder(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"], summary["warnings"]) == ("finished", True, [])
    assert [record.stage for record in folder.rounds()] == [
        "pretraining",
        "finetuning",
        "finetuning",
    ]
    for name in ("latest", "best", "final"):
        assert load_checkpoint(folder.checkpoint_path(name)).facts.accepted == NAMES
    assert summary["arms"]["federated"]["mean_dice"] == 0.5
    assert summary["plan_sha256"] == tiny_plan.sha256()
    assert not [
        p for p in folder.path.rglob("*") if p.is_file() and stat.S_IMODE(p.stat().st_mode) != 0o600
    ]


def test_the_average_is_weighted_by_examples(tmp_path, tiny_plan):
    """Sites add 0, 1 and 2 a round; weights 10:20:30 make that 4/3, three rounds make it 4."""
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    final = load_checkpoint(folder.checkpoint_path("final")).state
    start = 0.1  # the offset's initial value
    torch.testing.assert_close(final["subtraction.offset"], torch.tensor([start + 4.0]))
    shares = {site: c.share for site, c in folder.rounds()[0].accepted.items()}
    assert shares == pytest.approx({"ada": 1 / 6, "bea": 1 / 3, "cleo": 1 / 2})


def refused_with(answer, tmp_path, plan):
    sites = Sites()
    sites.train_answer["bea"] = answer
    folder = run(sites, plan, tmp_path / "run")
    record = folder.rounds()[0]
    assert set(record.accepted) == {"ada", "cleo"}
    honest = load_checkpoint(folder.checkpoint_path("final")).state["subtraction.offset"]
    # 0 and 2 with weights 10 and 30: 1.5 a round, three rounds
    torch.testing.assert_close(honest, torch.tensor([0.1 + 4.5]))
    summary = folder.read_summary()
    assert summary["complete"] is False
    assert any("bea left out" in warning for warning in summary["warnings"])
    return record.refused["bea"]


def reply(message, state, num_examples=20, loss=0.25):
    report = TrainReport(num_examples=num_examples, loss=loss)
    return Message(pack(report, state), reply_to=message)


def test_nan_weights_are_refused_by_name(tmp_path, tiny_plan):
    def answer(message, task, state):
        state["backbone.head.bias"] = torch.full_like(state["backbone.head.bias"], math.nan)
        return reply(message, state)

    assert "backbone.head.bias" in refused_with(answer, tmp_path, tiny_plan)


def test_a_wrong_shape_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        return reply(message, {**state, "subtraction.gain": torch.ones(7)})

    assert "shape (7,)" in refused_with(answer, tmp_path, tiny_plan)


def test_a_missing_array_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        del state["subtraction.gain"]
        return reply(message, state)

    assert "missing" in refused_with(answer, tmp_path, tiny_plan)


@pytest.mark.parametrize("claimed", [1, 21, 10**18])
def test_another_number_of_examples_than_declared_is_refused(tmp_path, tiny_plan, claimed):
    def answer(message, task, state):
        return reply(message, state, num_examples=claimed)

    assert f"claims {claimed} examples" in refused_with(answer, tmp_path, tiny_plan)


def test_a_nan_loss_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples=20, loss=1), state)
        content["body"] = ConfigRecord({"json": '{"num_examples": 20, "loss": NaN}'})
        return Message(content, reply_to=message)

    assert "loss" in refused_with(answer, tmp_path, tiny_plan)


def test_a_failed_site_is_named_without_its_words(tmp_path, tiny_plan):
    def answer(message, task, state):
        return Message(Error(2, "/data/patient-12345.dcm exploded"), reply_to=message)

    reason = refused_with(answer, tmp_path, tiny_plan)
    assert reason == "the site failed (Flower error 2)"


def test_a_failed_site_is_welcomed_back_in_the_next_round(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "pretraining":
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    records = run(sites, tiny_plan, tmp_path / "run").rounds()
    assert [set(r.accepted) == set(NAMES) for r in records] == [False, True, True]


def test_a_site_that_never_answers_is_left_out_after_the_deadline(tmp_path, tiny_plan):
    plan = tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 0},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 1, "deadline_seconds": 0.3},
    )
    sites = Sites()
    app = sites.app()

    class Silent(InProcessGrid):
        def pull_messages(self, message_ids):
            kept = [
                i
                for i in message_ids
                if i in self._waiting
                and not (
                    self._waiting[i].metadata.message_type == "train"
                    and self._waiting[i].metadata.dst_node_id == 1
                )
            ]
            return super().pull_messages(kept)

    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    folder = RunFolder(tmp_path / "run")
    make_server_app(Job(plan=plan, folder=folder.path, num_nodes=3))(Silent(app, 3), context)
    record = folder.rounds()[0]
    assert record.refused == {"ada": "no answer within 0.3 s"}
    assert record.answered == ("bea", "cleo")


def test_a_failed_quorum_fails_the_run_and_keeps_what_was_reached(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "finetuning" and task.server_round == 2:
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    with pytest.raises(RunError, match="finetuning round 2: 2 of 3 updates accepted, quorum is 3"):
        run(sites, with_quorum(tiny_plan, 3), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"]) == ("failed", False)
    assert len(folder.rounds()) == 3
    assert load_checkpoint(folder.checkpoint_path("latest")).facts.server_round == 1
    assert not folder.checkpoint_path("final").exists()


def test_a_run_that_fails_at_once_names_no_checkpoint(tmp_path, tiny_plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(2, "x"), reply_to=message)
    with pytest.raises(RunError):
        run(sites, with_quorum(tiny_plan, 3), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read_summary()["checkpoint"] is None


def test_a_run_that_fails_in_the_second_stage_names_what_it_reached(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "finetuning":
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    with pytest.raises(RunError):
        run(sites, with_quorum(tiny_plan, 3), tmp_path / "run")
    checkpoint = RunFolder(tmp_path / "run").read_summary()["checkpoint"]
    assert checkpoint == str(tmp_path / "run" / "checkpoints" / "latest.safetensors")


def test_a_stage_without_a_usable_site_fails_before_anything_is_written(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions = {site: description(site, malignant=0) for site in NAMES}
    with pytest.raises(RunError, match="finetuning: no site has a usable annotated malignant"):
        run(sites, tiny_plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_quorum_above_the_usable_sites_fails_before_anything_is_written(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["ada"] = description("ada", benign=0)
    with pytest.raises(RunError, match="2 sites have usable benign training cases"):
        run(sites, with_quorum(tiny_plan, 3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_stage_asks_only_the_sites_that_have_its_cases(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["ada"] = description("ada", malignant=0)
    sites.descriptions["bea"] = description("bea", benign=0)
    records = run(sites, tiny_plan, tmp_path / "run").rounds()
    assert [r.expected for r in records] == [("ada", "cleo"), ("bea", "cleo"), ("bea", "cleo")]


def test_the_best_round_is_that_of_the_highest_mean_validation_dice(tmp_path, tiny_plan):
    sites = Sites()
    sites.val_dice = {"ada": [0.9, 0.1], "bea": [0.5, 0.4], "cleo": [0.4, 0.6]}
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert load_checkpoint(folder.checkpoint_path("best")).facts.server_round == 1
    assert load_checkpoint(folder.checkpoint_path("final")).facts.server_round == 2
    assert folder.read_summary()["best_validation_dice"] == pytest.approx(0.6)


def test_two_nodes_of_one_name_are_refused(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["bea"] = description("ada")
    with pytest.raises(RunError, match="two nodes say that they are site 'ada'"):
        run(sites, tiny_plan, tmp_path / "run")


def test_an_earlier_run_is_kept_under_another_name(tmp_path, tiny_plan):
    first = run(Sites(), tiny_plan, tmp_path / "run")
    before = state_sha256(load_checkpoint(first.checkpoint_path("final")).state)
    run(Sites(), tiny_plan.changed(seed=9), tmp_path / "run")
    kept = RunFolder(tmp_path / "run.1")
    assert state_sha256(load_checkpoint(kept.checkpoint_path("final")).state) == before


def test_a_folder_of_something_else_is_never_touched(tmp_path, tiny_plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="not a run folder"):
        run(Sites(), tiny_plan, tmp_path / "run")
    assert (tmp_path / "run" / "thesis.tex").read_text() == "x"


def test_rounds_jsonl_is_one_readable_line_a_round(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    lines = (folder.path / "rounds.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first["accepted"]["ada"] == {"num_examples": 10, "share": 10 / 60, "loss": 0.25}
    assert first["bytes_sent"] == first["bytes_received"] > 1000
