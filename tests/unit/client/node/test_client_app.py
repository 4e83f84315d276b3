"""The real ClientApp on a real folder, asked by Flower's own messages."""

import errno
import logging

import cv2
import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from tests.unit.client.guarded import ALL, write_policy

from mamfed_client.disclosure.audit_log import read_record
from mamfed_client.disclosure.gate import open_gate
from mamfed_client.disclosure.open_gate import OpenGate
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.disclosure.refusal_messages import refusal_of
from mamfed_client.node.client_app import make_client_app
from mamfed_client.node.error_lines import log_error
from mamfed_client.node.supervisor import words
from mamfed_client.preparation import site_data as site_module
from mamfed_client.preparation.site_data import load_site
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.status import read_status, update_status
from mamfed_client.training.round_executor import LocalExecutor
from mamfed_common.errors import AuditError, JobError, SetupError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack, pack_task, unpack_body, unpack_update
from mamfed_common.protocol.tasks import (
    REFUSAL_CODES,
    EvaluateTask,
    Query,
    RefusalCode,
    SiteDescription,
    TrainTask,
)
from mamfed_simulations.federation.in_process import InProcessTransport

SCORING = {"part": "test", "stage": Stage.FINETUNING, "server_round": 1}


@pytest.fixture
def ask(site, tmp_path):
    app = make_client_app(
        lambda context: site,
        device="cpu",
        threads=1,
        norms=tmp_path / "norms",
        optimizer=tmp_path / "optimizer",
    )
    transport = InProcessTransport(app, 1)

    def send(kind: str, content: RecordDict) -> Message:
        reply = transport.pull(transport.push(1, kind, content, 60))
        assert reply is not None
        return reply

    return send


def test_a_query_is_answered_with_counts_only(ask, tiny_plan):
    reply = ask("query", pack(Query(plan=tiny_plan)))
    description = unpack_body(reply.content, SiteDescription)
    assert description.site == "here"
    assert description.images_used(tiny_plan, Stage.PRETRAINING) == {"benign": 4}
    assert "SECRET" not in str(reply.content)


def test_training_returns_new_weights_and_the_declared_number(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    description = unpack_body(ask("query", pack(Query(plan=tiny_plan))).content, SiteDescription)
    for stage in Stage:
        task = TrainTask(plan=tiny_plan, stage=stage, server_round=1)
        update = unpack_update(ask("train", pack(task, state)).content, state)
        assert state_sha256(update.state) != state_sha256(state)
        assert update.report.num_examples == description.images_used(tiny_plan, stage)


def test_a_round_that_was_kept_of_other_data_is_trained_anew(site, tiny_plan, tmp_path):
    folders = {name: tmp_path / name for name in ("norms", "optimizer", "state_folder")}
    app = make_client_app(lambda _: site, device="cpu", threads=1, **folders)
    transport = InProcessTransport(app, 1)
    state = state_of(build_network(tiny_plan.network, 5))
    task = TrainTask(plan=tiny_plan, stage=Stage.FINETUNING, server_round=1)

    def train():
        reply = transport.pull(transport.push(1, "train", pack(task, state), 60))
        (kept,) = (tmp_path / "state_folder").glob("*.result.safetensors")
        return state_sha256(unpack_update(reply.content, state).state), kept.name

    first, name = train()
    assert train() == (first, name), "the same round is sent again"
    ((_, folder),) = site.cohorts
    for mask in folder.glob("masks/*.png"):
        drawn = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        row, column = np.argwhere(drawn)[0]
        drawn[row : row + 9, column : column + 9] = 0
        cv2.imwrite(str(mask), drawn)
    site_module._loaded.clear()  # another process
    second, other = train()
    assert other != name
    assert second != first


def test_a_site_with_two_devices_sends_what_one_would(ask, site, tiny_plan, tmp_path):
    app = make_client_app(
        lambda context: site,
        device="cpu",
        devices=2,
        threads=1,
        norms=tmp_path / "norms",
        optimizer=tmp_path / "optimizer",
    )
    transport = InProcessTransport(app, 1)
    state = state_of(build_network(tiny_plan.network, 0))
    task = TrainTask(plan=tiny_plan, stage=Stage.FINETUNING, server_round=1)
    one = unpack_update(ask("train", pack(task, state)).content, state)
    reply = transport.pull(transport.push(1, "train", pack(task, state), 60))
    two = unpack_update(reply.content, state)
    assert two.report.num_examples == one.report.num_examples
    for name, tensor in one.state.items():
        torch.testing.assert_close(two.state[name], tensor, rtol=1e-4, atol=1e-6)


def test_own_norms_serve_the_run_that_they_are_of(ask, tiny_plan):
    federation = {**tiny_plan.federation.model_dump(), "local_norms": True}
    plan = tiny_plan.changed(federation=federation)
    state = state_of(build_network(plan.network, 0))

    def trained(server_round, run):
        task = TrainTask(plan=plan, stage=Stage.FINETUNING, server_round=server_round, run=run)
        return state_sha256(unpack_update(ask("train", pack(task, state)).content, state).state)

    without_own = trained(2, "first")
    trained(1, "first")
    assert trained(2, "first") != without_own
    assert trained(2, "second") == without_own


def test_evaluation_returns_means_and_counts_only(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    reply = ask("evaluate", pack(EvaluateTask(plan=tiny_plan, **SCORING), state))
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
    assert reply.error.reason == REFUSAL_CODES[2]
    assert "labels.csv" in caplog.text


def test_a_message_that_is_no_task_is_an_error_and_not_a_crash(ask):
    assert ask("train", RecordDict()).error.code == 2


def test_weights_of_another_network_are_refused_by_the_site(ask, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    del state["subtraction.gain"]
    task = TrainTask(plan=tiny_plan, stage=Stage.PRETRAINING, server_round=1)
    assert ask("train", pack(task, state)).has_error()


def test_a_site_judges_explanations_where_the_test_brings_a_painter(ask, tiny_plan):
    state, painter = (state_of(build_network(tiny_plan.network, seed)) for seed in (0, 1))
    values = {**SCORING, "part": "test", "threshold": 0.001}
    found = {}
    for brings, beside in ((True, painter), (False, None)):
        task = EvaluateTask(plan=tiny_plan, painter=brings, **values)
        answer = ask("evaluate", pack_task(task, state, beside))
        found[brings] = unpack_body(answer.content, SiteScore)
    assert found[False].lesions_redrawn is None
    judged = found[True].lesions_redrawn
    assert judged is not None
    assert 1 <= judged <= found[True].lesions
    assert found[True].redrawn_minus_ring is not None
    unjudged = dict.fromkeys(("lesions_redrawn", "redrawn_as_tissue", "redrawn_minus_ring"))
    assert found[True].model_copy(update=unjudged) == found[False], "no other figure changes"


@pytest.mark.parametrize("wire", ["float32", "compact"])
def test_behind_the_gate_the_same_bits_leave(ask, guarded, tiny_plan, wire):
    tiny_plan = tiny_plan.changed(federation={"wire": wire})
    state = state_of(build_network(tiny_plan.network, 0))
    for stage in Stage:
        task = TrainTask(plan=tiny_plan, stage=stage, server_round=1)
        simulated = unpack_update(ask("train", pack_task(task, state)).content, state, wire)
        deployed = unpack_update(guarded.ask("train", task, state).content, state, wire)
        assert state_sha256(deployed.state) == state_sha256(simulated.state)
        assert deployed.report == simulated.report
    score = guarded.ask("evaluate", EvaluateTask(plan=tiny_plan, **SCORING), state)
    assert set(unpack_body(score.content, SiteScore).model_dump(exclude_none=True)) == {
        "images",
        "dice",
    }
    entries = read_record(guarded.home.audit).entries
    assert [entry.kind for entry in entries] == ["train", "train", "evaluate"]
    assert "SECRET" not in guarded.home.audit.read_text()


def test_a_round_asked_again_is_answered_without_training(guarded, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    task = TrainTask(plan=tiny_plan, stage=Stage.FINETUNING, server_round=1)
    first = unpack_update(guarded.ask("train", task, state).content, state)
    trained = len(guarded.steps)
    assert trained > 0
    again = guarded.ask("train", task, state, transport=guarded.start())
    assert state_sha256(unpack_update(again.content, state).state) == state_sha256(first.state)
    assert len(guarded.steps) == trained
    guarded.ask("train", task.model_copy(update={"server_round": 2}), state)
    assert len(guarded.steps) == 2 * trained


def test_an_unsigned_plan_is_refused_before_anything_is_read(guarded, tiny_plan, site):
    (site.cohorts[0][1] / "labels.csv").unlink()
    app = make_client_app(
        lambda context: site,
        device="cpu",
        gate=open_gate(guarded.home),
        norms=guarded.home.state,
        optimizer=guarded.home.state,
    )
    transport = InProcessTransport(app, 1)
    reply = transport.pull(transport.push(1, "query", pack(Query(plan=tiny_plan)), 60))
    assert reply.error.code == RefusalCode.PLAN_NOT_SIGNED
    assert reply.error.reason == REFUSAL_CODES[RefusalCode.PLAN_NOT_SIGNED]


def test_edits_of_the_policy_and_decisions_bite_at_the_next_message(guarded, tiny_plan, caplog):
    def code():
        reply = guarded.ask("query", Query(plan=tiny_plan))
        return reply.error.code if reply.has_error() else None

    assert code() is None
    write_policy(guarded.home, ALL | {"bounds": {"max_image_size": 32, "max_rounds": 2}})
    assert code() == RefusalCode.PLAN_OUTSIDE_POLICY
    write_policy(guarded.home, ALL | {"plans": {"approval": "manual"}})
    assert code() == RefusalCode.PLAN_NOT_APPROVED
    PlanStore(guarded.home.plans).decide(tiny_plan.sha256(), Decision.APPROVED)
    assert code() is None
    with caplog.at_level(logging.WARNING):
        write_policy(guarded.home, ALL | {"polisy": 1})
        assert code() == RefusalCode.POLICY_UNREADABLE
    assert "unknown key 'policy.polisy'" in caplog.text
    write_policy(guarded.home, ALL)
    assert code() is None
    faults = [e.values for e in read_record(guarded.home.audit).entries if e.kind == "fault"]
    assert faults == [{"fault": code} for code in (103, 102, 112)]


def test_the_refusal_says_a_code_and_the_log_says_the_rest(guarded, tiny_plan, site, caplog):
    (site.cohorts[0][1] / "labels.csv").write_text("nonsense of patient SECRET-M1\n")
    with caplog.at_level(logging.ERROR):
        reply = guarded.ask("query", Query(plan=tiny_plan.changed(seed=9)))
    assert reply.error.code == RefusalCode.DATA_UNUSABLE
    assert "labels.csv" in caplog.text
    assert "labels" not in reply.error.reason
    (entry,) = read_record(guarded.home.audit).entries
    assert entry.values == {"fault": 108}


@pytest.mark.parametrize(
    ("policy", "said", "passing"),
    [
        (
            {"bounds": {"min_min_sites": 4}},
            "refused, because this site's policy does not allow this plan: min_sites is 3, "
            "policy.bounds.min_min_sites allows at least 4. Ask the coordinator for "
            "another plan, or set policy.bounds.min_min_sites: 3 in site.yaml",
            False,
        ),
        (
            {"plans": {"approval": "manual"}},
            "refused, because this site has not approved this plan yet: run mamfed-client plan "
            "approve {plan} to read and approve it",
            True,
        ),
        (
            {"release": {}},
            "refused, because this site's policy does not let this answer leave: "
            "policy.release.metrics lacks 'counts'; allow it in policy.release in site.yaml, "
            "or do not take part",
            False,
        ),
    ],
)
def test_while_a_site_refuses_one_line_says_why_and_what_to_do(
    guarded, tiny_plan, policy, said, passing
):
    write_policy(guarded.home, ALL | policy)
    guarded.ask("query", Query(plan=tiny_plan))
    for state in ("online", "training"):  # the node's own words, between two questions
        update_status(guarded.home, state=state)
        status = read_status(guarded.home)
        assert words(status) == said.format(plan=tiny_plan.sha256()[:12])
        assert status.refusal.passing is passing
    write_policy(guarded.home, ALL)
    assert guarded.ask("query", Query(plan=tiny_plan)).has_content()
    assert read_status(guarded.home).refusal is None


def test_a_site_that_cannot_use_its_data_says_so(guarded, tiny_plan, site):
    (site.cohorts[0][1] / "labels.csv").unlink()
    guarded.ask("query", Query(plan=tiny_plan))
    update_status(guarded.home, state="online")
    said = words(read_status(guarded.home))
    assert said.startswith("refused, because this site cannot use its data: ")
    assert said.endswith("run mamfed-client preflight to check the data again")


def test_too_few_cases_are_found_out_before_training(guarded, tiny_plan):
    write_policy(guarded.home, ALL | {"min_training_cases": 5})
    state = state_of(build_network(tiny_plan.network, 0))
    task = TrainTask(plan=tiny_plan, stage=Stage.PRETRAINING, server_round=1)
    assert guarded.ask("train", task, state).error.code == RefusalCode.TOO_FEW_CASES
    assert not guarded.steps


@pytest.mark.parametrize("stage", Stage)
def test_a_plan_cannot_have_a_round_on_one_image(guarded, tiny_plan, stage):
    """From such an update the image can be drawn (``tests/security/red_team.py``)."""
    state = state_of(build_network(tiny_plan.network, 0))
    few = {"local_epochs": None, "local_steps": 1, "batch_size": 1}
    part = {**tiny_plan.stage(stage).model_dump(), **few}
    task = TrainTask(plan=tiny_plan.changed(**{stage: part}), stage=stage, server_round=1)
    assert guarded.ask("train", task, state).error.code == RefusalCode.TOO_FEW_CASES
    assert not guarded.steps
    part["local_steps"] = 4
    task = TrainTask(plan=tiny_plan.changed(**{stage: part}), stage=stage, server_round=1)
    assert not guarded.ask("train", task, state).has_error()


def test_with_nothing_allowed_nothing_leaves_but_codes(guarded, tiny_plan):
    write_policy(guarded.home, {"plans": {"approval": "within-bounds"}})
    state = state_of(build_network(tiny_plan.network, 0))
    asked = [
        ("query", Query(plan=tiny_plan), None),
        ("train", TrainTask(plan=tiny_plan, stage=Stage.PRETRAINING, server_round=1), state),
        ("evaluate", EvaluateTask(plan=tiny_plan, **SCORING), state),
    ]
    for kind, body, weights in asked:
        reply = guarded.ask(kind, body, weights)
        assert reply.error.code == RefusalCode.MAY_NOT_LEAVE
        assert not reply.has_content()
    assert not guarded.steps


def test_what_cannot_be_recorded_does_not_leave(guarded, tiny_plan):
    assert guarded.ask("query", Query(plan=tiny_plan)).has_content()
    guarded.home.audit.write_text("")
    reply = guarded.ask("query", Query(plan=tiny_plan))
    assert not reply.has_content()
    assert reply.error.code == RefusalCode.FAILED


def test_a_home_without_a_welcome_has_no_gate(guarded):
    guarded.home.welcome.unlink()
    with pytest.raises(SetupError, match="welcome"):
        open_gate(guarded.home)


@pytest.mark.parametrize(
    ("finetuning", "losses", "kinds"),
    [
        ({}, {}, {"malignant": 4, "benign": 4}),
        ({"beside": "without_malignancy"}, {}, {"malignant": 4, "without_malignancy": 4}),
        ({}, {"benign": 0}, {"malignant": 4}),
    ],
)
def test_the_images_of_stage_2_are_those_that_the_description_promises(
    site, tiny_plan, finetuning, losses, kinds
):
    stage = {**tiny_plan.finetuning.model_dump(), **finetuning}
    plan = tiny_plan.changed(finetuning=stage, losses=losses)
    data = load_site(site, plan)
    assert data.describe().images_used(plan, Stage.FINETUNING) == kinds
    assert list(map(len, data.training(plan, Stage.FINETUNING))) == [4, sum(kinds.values()) - 4]


def test_a_job_that_brings_no_result_is_a_code_and_one_line(site, tiny_plan, tmp_path, caplog):
    class Lost(LocalExecutor):
        def train(self, *args, **kwargs):
            raise JobError("Slurm job 12 was lost with its machine")

    class Telling(OpenGate):
        def release_code(self, code):
            return code

    lost = Lost(Hardware("cpu", threads=1))
    folders = {name: tmp_path / name for name in ("norms", "optimizer")}
    app = make_client_app(lambda _: site, executor=lost, gate=Telling(), **folders)
    transport = InProcessTransport(app, 1)
    state = state_of(build_network(tiny_plan.network, 0))
    task = TrainTask(plan=tiny_plan, stage=Stage.FINETUNING, server_round=1)
    reply = transport.pull(transport.push(1, "train", pack(task, state), 60))
    assert reply.error.code == RefusalCode.JOB_LOST
    assert "12" not in reply.error.reason
    (line,) = [r for r in caplog.records if "Slurm job 12" in r.getMessage()]
    assert line.exc_info is None
    refusal = refusal_of(JobError("Slurm job 12 was lost"), RefusalCode.JOB_LOST)
    words = "this site's job on its cluster brought no result: Slurm job 12 was lost"
    assert refusal.words == words


def test_an_error_that_the_machine_explains_is_one_line_and_others_keep_their_traceback(
    tmp_path, caplog
):
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "answers.json"))
    log_error("this site could not answer a train", full)
    try:
        try:
            raise full
        except OSError:
            raise AuditError("audit.jsonl: cannot be written: No space left on device") from None
    except AuditError as error:
        log_error("the refusal could not be recorded", error)
    log_error("this site could not answer a train", ValueError("unknown"))
    first, second, third = caplog.records
    assert "No space left on device" in first.getMessage()
    assert second.getMessage().endswith("cannot be written: No space left on device")
    assert (first.exc_info, second.exc_info) == (None, None)
    assert third.exc_info is not None
