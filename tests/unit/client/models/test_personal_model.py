"""A site adapts the final shared model to its own patients, keeps it, and tells scores only."""

import stat

import pytest
import torch
from tests.unit.client.conftest import Folder
from tests.unit.client.guarded import ALL, write_policy

from mamfed_client.disclosure.audit_log import read_record
from mamfed_client.disclosure.gate import OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal, check_bounds
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.models.model_store import (
    MOST_RUNS,
    ModelFolder,
    find_model,
    folder_for,
    kept_runs,
)
from mamfed_client.models.personal_model import Adapter, adaptation_plan, averaged
from mamfed_client.node.client_app import make_client_app
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import Policy
from mamfed_client.training.round_executor import LocalExecutor
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, load_checkpoint
from mamfed_common.errors import CheckpointError, OutputError, WeightsError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack, pack_task, unpack_body
from mamfed_common.protocol.tasks import REFUSAL_CODES, EvaluateTask, RefusalCode
from mamfed_common.training.round_checkpoint import RoundCheckpointer
from mamfed_simulations.federation.in_process import InProcessTransport

TEST = {"part": "test", "stage": Stage.FINETUNING, "server_round": 1}

HERE = LocalExecutor(Hardware("cpu", threads=1))


@pytest.fixture
def tiny_plan(tiny_plan):
    return personal(tiny_plan, steps=2)


@pytest.fixture
def data(site, tiny_plan):
    return load_site(site, tiny_plan)


@pytest.fixture
def adapter(data):
    return Adapter(data, HERE, OpenGate())


def weights(plan, seed=0):
    return state_of(build_network(plan.network, seed))


def facts(plan, **more):
    stage = {"stage": Stage.FINETUNING, "server_round": 1}
    return CheckpointFacts(plan=plan, plan_sha256=plan.sha256(), **stage, **more)


def personal(plan, **values):
    return plan.changed(personal={**plan.personal.model_dump(), **values})


def test_the_average_has_the_plan_s_share_of_the_adapted_weights():
    shared = {"a": torch.tensor([0.0, 2.0]), "n": torch.tensor(3)}
    adapted = {"a": torch.tensor([4.0, 2.0]), "n": torch.tensor(5)}
    assert averaged(shared, adapted, 0.25)["a"].tolist() == [1.0, 2.0]
    assert averaged(shared, adapted, 1.0)["a"].tolist() == [4.0, 2.0]
    assert averaged(shared, adapted, 0.25)["n"] == 5


@pytest.mark.parametrize("steps", [1, 5])
def test_adapting_takes_the_plan_s_steps_whatever_the_number_of_images(data, tiny_plan, steps):
    taken = []
    hardware = Hardware("cpu", threads=1)
    adapter = Adapter(data, LocalExecutor(hardware), OpenGate(), on_step=lambda: taken.append(1))
    adapter.adapt(weights(tiny_plan), personal(tiny_plan, steps=steps))
    assert len(taken) == steps


def test_adapting_draws_other_images_than_a_round_did_and_the_same_each_time(adapter, tiny_plan):
    assert adaptation_plan(tiny_plan).seed != tiny_plan.seed
    assert adaptation_plan(tiny_plan).finetuning.learning_rate == tiny_plan.personal.learning_rate
    state = weights(tiny_plan)
    once, again = (state_sha256(adapter.adapt(state, tiny_plan)) for _ in range(2))
    assert once == again != state_sha256(state)


def test_killed_in_the_middle_it_ends_with_the_same_bits(data, tiny_plan, tmp_path):
    plan, state = personal(tiny_plan, steps=5), weights(tiny_plan)
    taken = []

    def adapt(die_at=None):
        def on_step():
            taken.append(1)
            if len(taken) == die_at:
                raise KeyboardInterrupt

        checkpointer = RoundCheckpointer(tmp_path / "state", "personal", every_seconds=0)
        return Adapter(data, HERE, OpenGate(), checkpointer, on_step).adapt(state, plan)

    whole = Adapter(data, HERE, OpenGate()).adapt(state, plan)
    with pytest.raises(KeyboardInterrupt):
        adapt(die_at=3)
    assert state_sha256(adapt()) == state_sha256(whole)
    assert len(taken) == 5  # what was done before the kill is not done again


def test_a_site_without_a_malignant_training_image_has_nothing_to_adapt_with(
    folder, tmp_path, tiny_plan
):
    for number in range(6):
        folder.benign(f"B{number}")
    site = Site("benign", (("benign", folder.write()),), tmp_path / "cache")
    adapter = Adapter(load_site(site, tiny_plan), HERE, OpenGate())
    with pytest.raises(PolicyRefusal) as caught:
        adapter.adapt(weights(tiny_plan), tiny_plan)
    assert caught.value.fault is RefusalCode.NOTHING_TO_ADAPT_WITH


def test_the_model_is_kept_as_a_private_checkpoint_and_made_once(data, tiny_plan, tmp_path):
    taken = []
    adapter = Adapter(data, HERE, OpenGate(), on_step=lambda: taken.append(1))
    folder, state = ModelFolder(tmp_path / "models" / "run"), weights(tiny_plan)
    made = adapter.personal(Checkpoint(state, facts(tiny_plan)), folder)
    path = folder.file("personal")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kept = load_checkpoint(path)
    assert state_sha256(kept.state) == state_sha256(made.state)
    assert kept.facts.personal.model_dump() == {
        "site": "here",
        "steps": 2,
        "learning_rate": 1e-3,
        "share": 0.5,
        "shared_sha256": state_sha256(state),
    }
    again = adapter.personal(Checkpoint(state, facts(tiny_plan)), folder)
    assert state_sha256(again.state) == state_sha256(made.state)
    assert len(taken) == 2
    for other in (weights(tiny_plan, 7), state):  # of other shared weights it is another model
        adapter.personal(Checkpoint(other, facts(tiny_plan)), folder)
    assert len(taken) == 6


def test_a_damaged_personal_model_is_made_again(adapter, tiny_plan, tmp_path):
    folder, state = ModelFolder(tmp_path / "run"), weights(tiny_plan)
    first = adapter.personal(Checkpoint(state, facts(tiny_plan)), folder)
    folder.file("personal").write_bytes(b"half a fi")
    again = adapter.personal(Checkpoint(state, facts(tiny_plan)), folder)
    assert state_sha256(again.state) == state_sha256(first.state)
    assert load_checkpoint(folder.file("personal")).facts == again.facts.model_copy(
        update={"weights_sha256": state_sha256(again.state)}
    )


def score(plan, guarded, model="personal", state=None, **more):
    task = EvaluateTask(plan=plan, model=model, **{**TEST, **more})
    return guarded.ask("evaluate", task, weights(plan) if state is None else state)


def test_only_scores_leave_and_the_record_says_whose(guarded, tiny_plan):
    shared = score(tiny_plan, guarded, "shared", run="demo")
    own = score(tiny_plan, guarded, run="demo")
    assert set(own.content) == {"body"}
    assert set(unpack_body(own.content, SiteScore).model_dump(exclude_none=True)) == {
        "images",
        "dice",
    }
    first, second = read_record(guarded.home.audit).entries
    assert (first.kind, first.model, first.weights) == ("evaluate", None, ())
    assert (second.kind, second.model, second.weights) == ("evaluate", "personal", ())
    assert '"model"' not in first.line()  # as records were before there were such models
    (run,) = kept_runs(guarded.home.models)
    assert run.run == "demo"
    assert run.name == f"demo-{tiny_plan.sha256()[:12]}"
    state = load_checkpoint(run.folder.file("shared")).state
    assert state_sha256(state) == state_sha256(weights(tiny_plan))
    known = run.folder.scores()
    assert known.shared.dice == unpack_body(shared.content, SiteScore).dice
    assert known.personal.dice == unpack_body(own.content, SiteScore).dice


def test_asked_again_after_a_restart_it_answers_without_training(guarded, tiny_plan):
    first = score(tiny_plan, guarded)
    trained = len(guarded.steps)
    assert trained == 2
    task = EvaluateTask(plan=tiny_plan, model="personal", **TEST)
    again = guarded.ask("evaluate", task, weights(tiny_plan), transport=guarded.start())
    assert len(guarded.steps) == trained
    assert again.content["body"] == first.content["body"]


def test_a_policy_may_want_no_personal_model(guarded, tiny_plan):
    write_policy(guarded.home, ALL | {"personal": False})
    reply = score(tiny_plan, guarded)
    assert reply.error.code == RefusalCode.NO_PERSONAL_MODEL
    assert reply.error.reason == REFUSAL_CODES[RefusalCode.NO_PERSONAL_MODEL]
    assert not guarded.steps
    assert not score(tiny_plan, guarded, "shared").has_error()
    (run,) = kept_runs(guarded.home.models)
    assert not run.folder.file("personal").exists()


def test_where_no_score_may_leave_the_models_are_the_site_s_all_the_same(guarded, tiny_plan):
    release = {"arrays": ["*"], "metrics": ["counts", "num_examples"]}
    write_policy(guarded.home, ALL | {"release": release})
    for model in ("shared", "personal"):
        assert score(tiny_plan, guarded, model).error.code == RefusalCode.MAY_NOT_LEAVE
    (run,) = kept_runs(guarded.home.models)
    assert run.folder.file("shared").exists()
    assert run.folder.file("personal").exists()
    assert [entry.kind for entry in read_record(guarded.home.audit).entries] == ["fault", "fault"]


def test_two_runs_and_their_models_do_not_mix(guarded, tiny_plan):
    plans = PlanStore(guarded.home.plans)
    for run, seed in (("one", 1), ("two", 2)):
        plans.decide(tiny_plan.sha256(), Decision.APPROVED)  # opens the plan's questions again
        for model in ("shared", "personal"):
            assert not score(
                tiny_plan, guarded, model, weights(tiny_plan, seed), run=run
            ).has_error()
    models = guarded.home.models
    for run, seed in (("one", 1), ("two", 2)):
        shared = load_checkpoint(find_model(models, "shared", run))
        own = load_checkpoint(find_model(models, "personal", run))
        assert shared.facts.weights_sha256 == state_sha256(weights(tiny_plan, seed))
        assert own.facts.personal.shared_sha256 == shared.facts.weights_sha256
    # The same run with other final weights: what was made of the old ones is gone.
    score(tiny_plan, guarded, "shared", weights(tiny_plan, 3), run="two")
    with pytest.raises(CheckpointError, match="left no personal model"):
        find_model(models, "personal", "two")
    assert find_model(models, "personal", "one")


def test_a_run_s_name_is_no_path(tmp_path, tiny_plan):
    for run in ("../../etc", "a/b", "", "x" * 255):
        assert folder_for(tmp_path, run, tiny_plan) == tmp_path / tiny_plan.sha256()[:12]


def test_new_names_of_runs_do_not_fill_the_disk(tmp_path, tiny_plan):
    for number in range(MOST_RUNS):
        folder = folder_for(tmp_path, f"run{number}", tiny_plan)
        folder.mkdir()
        (folder / "shared.safetensors").touch()
    assert folder_for(tmp_path, "run3", tiny_plan).exists()
    with pytest.raises(OutputError, match="remove the folders of old runs"):
        folder_for(tmp_path, "one-more", tiny_plan)


def test_a_personal_model_is_asked_for_at_the_end_only(guarded, tiny_plan):
    for more in ({"part": "val"}, {"stage": Stage.PRETRAINING}):
        with pytest.raises(ValueError, match="for the final test only"):
            EvaluateTask(plan=tiny_plan, model="personal", **{**TEST, **more})
    record = pack(EvaluateTask(plan=tiny_plan, **TEST))
    text = record["body"]["json"]
    record["body"]["json"] = text.replace('"shared"', '"personal"').replace('"test"', '"val"')
    with pytest.raises(WeightsError, match="for the final test only"):
        unpack_body(record, EvaluateTask)


def test_the_bounds_hold_for_the_adapting_too(tiny_plan):
    def fits(plan, name):
        return next(check.fits for check in check_bounds(Policy(), plan) if check.name == name)

    steep = personal(tiny_plan, learning_rate=0.5)
    assert fits(tiny_plan, "learning_rate")
    assert not fits(steep, "learning_rate")
    assert fits(personal(steep, steps=0), "learning_rate")
    assert fits(personal(tiny_plan, steps=1000), "local_steps")
    assert not fits(personal(tiny_plan, steps=1001), "local_steps")


def test_a_site_without_a_test_image_keeps_the_final_model_all_the_same(tmp_path, tiny_plan):
    (tmp_path / "lone").mkdir()
    lone = Site("lone", (("lone", Folder(tmp_path / "lone").benign("B").write()),), tmp_path / "c")
    app = make_client_app(
        lambda _: lone,
        device="cpu",
        threads=1,
        norms=tmp_path / "norms",
        optimizer=tmp_path / "moments",
        models=lambda *_: tmp_path / "models",
    )
    final = pack_task(EvaluateTask(plan=tiny_plan, run="first", **TEST), weights(tiny_plan))
    transport = InProcessTransport(app, 1)
    reply = transport.pull(transport.push(1, "evaluate", final, 60))
    told = unpack_body(reply.content, SiteScore)
    assert (told.images, told.images_without_malignancy, told.dice) == (0, 0, None)
    kept = load_checkpoint(tmp_path / "models" / "shared.safetensors").state
    assert state_sha256(kept) == state_sha256(weights(tiny_plan))
    said = (tmp_path / "models" / "card.md").read_text()
    assert "shared model: not scored, because none of them has a malignant image\n" in said
