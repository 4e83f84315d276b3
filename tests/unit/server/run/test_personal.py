"""After the test of the shared model, the server asks for the sites' own."""

import json

import pytest
from flwr.app import Error, Message
from tests.unit.server.sites import NAMES, Sites, description, run, score

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack, unpack_body, unpack_weights
from mamfed_common.protocol.tasks import REFUSAL_CODES, EvaluateTask, RefusalCode
from mamfed_server.run.deadlines import personal_deadlines
from mamfed_server.run_folder.round_record import RoundRecord


class Adapting(Sites):
    """Sites that note which model they are asked for, and of which weights."""

    def __init__(self):
        super().__init__()
        self.tests = []
        self.own_answer = {}
        self.test_answer = {}

    def evaluate(self, message, context):
        task = unpack_body(message.content, EvaluateTask)
        site = self.name(context)
        if task.part == "test":
            expected = state_of(MalignancyNetwork(task.plan.network))
            state = state_sha256(unpack_weights(message.content, task, expected))
            self.tests.append((site, task.model, task.threshold, state))
        if task.model == "shared" and task.part == "test" and site in self.test_answer:
            return self.test_answer[site](message)
        if task.model == "shared":
            return super().evaluate(message, context)
        if site in self.own_answer:
            return self.own_answer[site](message)
        return Message(pack(score(0.75)), reply_to=message)


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan.changed(personal={"steps": 7})


def refuse(fault):
    return lambda message: Message(Error(fault, "SECRET words"), reply_to=message)


def test_every_site_is_asked_for_its_own_model_of_the_chosen_weights(plan, tmp_path):
    sites = Adapting()
    folder = run(sites, plan, tmp_path / "run")
    best = load_checkpoint(folder.checkpoint_path("best"))
    chosen = state_sha256(best.state)
    threshold = best.facts.threshold
    asked = [(site, model, threshold, chosen) for model in ("shared", "personal") for site in NAMES]
    assert sites.tests == asked
    arms = folder.read_summary()["arms"]
    assert arms["federated"]["mean_dice"] == 0.5
    assert arms["personal"]["mean_dice"] == 0.75
    assert list(arms["personal"]["sites"]) == list(NAMES)
    assert arms["personal"]["not_trained"] == {}


def test_a_plan_without_personal_models_asks_for_none(tiny_plan, tmp_path):
    sites = Adapting()
    summary = run(sites, tiny_plan, tmp_path / "run").read_summary()
    assert {model for _, model, *_ in sites.tests} == {"shared"}
    assert set(summary["arms"]) == {"federated"}


def test_a_site_without_one_is_named_with_the_reason_and_its_shared_score_stands(plan, tmp_path):
    sites = Adapting()
    sites.descriptions["ada"] = description("ada", malignant=0)
    sites.own_answer["bea"] = refuse(RefusalCode.NO_PERSONAL_MODEL)
    folder = run(sites, plan, tmp_path / "run")
    summary = folder.read_summary()
    assert set(summary["arms"]["federated"]["sites"]) == set(NAMES)
    own = summary["arms"]["personal"]
    assert list(own["sites"]) == ["cleo"]
    assert own["not_trained"] == {
        "ada": REFUSAL_CODES[RefusalCode.NOTHING_TO_ADAPT_WITH],
        "bea": REFUSAL_CODES[RefusalCode.NO_PERSONAL_MODEL],
    }
    assert summary["status"] == "finished"
    assert any("personal model: bea" in warning for warning in summary["warnings"])
    assert "SECRET" not in json.dumps(summary)


def test_a_claim_over_more_images_than_declared_does_not_count(plan, tmp_path):
    sites = Adapting()
    sites.own_answer["cleo"] = lambda m: Message(pack(score(1.0, images=9)), reply_to=m)
    own = run(sites, plan, tmp_path / "run").read_summary()["arms"]["personal"]
    assert "9 images" in own["not_trained"]["cleo"]


def test_a_site_without_test_images_adapts_too(plan, tmp_path):
    sites = Adapting()
    bare = description("bea")
    images = bare.images | {"malignant": {"train": 20, "val": 1, "test": 0}}
    sites.descriptions["bea"] = bare.model_copy(update={"images": images})
    nothing = score(None, images=0, lesions=0, lesions_found=0)
    sites.own_answer["bea"] = lambda m: Message(pack(nothing), reply_to=m)
    own = run(sites, plan, tmp_path / "run").read_summary()["arms"]["personal"]
    assert [model for site, model, *_ in sites.tests if site == "bea"] == ["personal"]
    assert own["sites"]["bea"]["dice"] is None
    assert own["mean_dice"] == 0.75


def test_the_deadline_is_that_of_so_many_steps_of_training(plan):
    bounds = {"deadline_seconds": 1000, "min_deadline_seconds": 1}
    stage = {**plan.finetuning.model_dump(), **bounds}  # 10 images: 5 steps an epoch
    plan = plan.changed(finetuning=stage, personal={"steps": 20})
    descriptions = {site: description(site) for site in NAMES}
    record = RoundRecord(
        stage=Stage.FINETUNING,
        server_round=1,
        expected=NAMES,
        answered=NAMES,
        accepted={},
        refused={},
        durations={"ada": 10.0, "bea": 10.0},
        validation_durations={"ada": 5.0},
    )
    other = record.model_copy(update={"stage": Stage.PRETRAINING, "durations": {"ada": 300.0}})
    found = personal_deadlines(plan, [record, other], descriptions, NAMES)
    assert found == {
        "ada": 3 * (10.0 * 20 / 5 + 2 * 5.0),
        "bea": 3 * (10.0 * 20 / 10),
        "cleo": 1000,
    }


@pytest.mark.parametrize("steps", [0, 7])
def test_a_site_that_is_asked_for_no_score_has_the_final_model_all_the_same(
    tiny_plan, tmp_path, steps
):
    sites = Adapting()
    bare = description("ada")
    nothing_held_out = {"benign": {"train": 10}, "malignant": {"train": 0, "val": 0, "test": 0}}
    sites.descriptions["ada"] = bare.model_copy(update={"images": nothing_held_out})
    none = score(None, images=0, lesions=0, lesions_found=0)
    sites.test_answer["ada"] = lambda m: Message(pack(none), reply_to=m)
    folder = run(sites, tiny_plan.changed(personal={"steps": steps}), tmp_path / "run")
    chosen = state_sha256(load_checkpoint(folder.checkpoint_path("best")).state)
    assert [(m, state) for site, m, _, state in sites.tests if site == "ada"] == [
        ("shared", chosen)
    ]
    summary = folder.read_summary()
    assert list(summary["arms"]["federated"]["sites"]) == ["bea", "cleo"]
    assert not any("final model" in warning for warning in summary["warnings"])


def test_a_site_to_which_the_final_model_may_not_have_come_is_named(plan, tmp_path):
    sites = Adapting()
    images = {"benign": {"train": 10}, "malignant": {"train": 0, "val": 0, "test": 0}}
    sites.descriptions["ada"] = description("ada").model_copy(update={"images": images})
    sites.test_answer["ada"] = refuse(RefusalCode.FAILED)
    summary = run(sites, plan, tmp_path / "run").read_summary()
    (said,) = (warning for warning in summary["warnings"] if "final model" in warning)
    assert said == f"the final model may not have come to ada: {REFUSAL_CODES[RefusalCode.FAILED]}"
    assert summary["status"] == "finished"
