"""A site whose policy wants privacy of each patient, asked by Flower's own messages."""

import shutil

import pytest
from tests.unit.client.guarded import ALL, write_policy

from mamfed_client.disclosure.audit_log import read_record
from mamfed_client.disclosure.privacy_ledger import PrivacyLedger, epsilon
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import unpack_update
from mamfed_common.protocol.tasks import EvaluateTask, RefusalCode, TrainTask

pytest.importorskip("opacus")
RULE = {"noise_multiplier": 1.0, "max_epsilon": 50, "clip_norm": 1.0}


def with_rule(**changes):
    return {**ALL, "privacy": {"patients": {**RULE, **changes}}}


@pytest.fixture
def train(guarded, tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))

    def ask(server_round=1, stage=Stage.FINETUNING, **values):
        task = TrainTask(plan=tiny_plan, stage=stage, server_round=server_round, run="r")
        reply = guarded.ask("train", task, state, **values)
        return reply.error.code if reply.has_error() else unpack_update(reply.content, state)

    return ask


def test_each_round_reports_the_epsilon_of_all_rounds_and_no_loss(guarded, train, tiny_plan):
    write_policy(guarded.home, with_rule())
    first, second = train(1), train(2)
    assert first.report.loss is None
    assert first.report.privacy.delta == 1e-5
    assert 0 < first.report.privacy.epsilon < second.report.privacy.epsilon
    (charge,) = PrivacyLedger(guarded.home.privacy).charges()
    steps = tiny_plan.steps(Stage.FINETUNING, first.report.num_examples)
    assert charge.steps == 2 * steps == len(guarded.steps)
    assert second.report.privacy.epsilon == pytest.approx(epsilon((charge,), 1e-5), abs=1e-3)
    *_, line = read_record(guarded.home.audit).entries
    assert line.values["privacy"] == second.report.privacy.model_dump()


def test_stages_spend_from_the_same_budget(guarded, train):
    write_policy(guarded.home, with_rule())
    first = train(1, Stage.PRETRAINING)
    assert train(1).report.privacy.epsilon > first.report.privacy.epsilon


def test_without_the_rule_nothing_of_it_is_said(guarded, train):
    assert train(1).report.privacy is None
    assert "privacy" not in train(2).report.model_dump()
    assert not guarded.home.privacy.exists()


def test_the_same_question_has_the_same_answer_at_no_further_cost(guarded, train):
    write_policy(guarded.home, with_rule())
    first, steps = train(1), len(guarded.steps)
    again = train(1, transport=guarded.start())
    assert state_sha256(again.state) == state_sha256(first.state)
    assert again.report == first.report
    assert len(guarded.steps) == steps


def test_a_result_that_was_lost_does_not_leave_with_other_noise(guarded, train):
    """Two results of one round would let the coordinator average the noise away."""
    write_policy(guarded.home, with_rule())
    train(1)
    for path in guarded.home.state.glob("*.safetensors"):
        path.unlink()
    shutil.rmtree(guarded.home.state / "optimizer", ignore_errors=True)
    assert train(1) == RefusalCode.ALREADY_ANSWERED


def test_the_site_stops_before_its_epsilon_is_exceeded(guarded, train):
    write_policy(guarded.home, with_rule())
    spent = train(1).report.privacy.epsilon
    write_policy(guarded.home, with_rule(max_epsilon=round(spent + 0.01, 4)))
    steps = len(guarded.steps)
    assert train(1).report.privacy.epsilon == spent, "what was paid for may be asked again"
    write_policy(guarded.home, with_rule(max_epsilon=round(spent - 0.01, 4)))
    assert train(1) == RefusalCode.PRIVACY_SPENT
    assert train(2) == RefusalCode.PRIVACY_SPENT
    assert len(guarded.steps) == steps, "nothing was trained"


def test_a_delta_that_means_nothing_is_refused(guarded, train):
    write_policy(guarded.home, with_rule(delta=0.5))
    assert train(1) == RefusalCode.PRIVACY_SPENT


def test_weights_trained_before_the_rule_do_not_leave_under_it(guarded, train, monkeypatch):
    import mamfed_client.training.round_executor as module

    real = module.train_on

    def then_the_rule(*arguments, **values):
        write_policy(guarded.home, with_rule())
        return real(*arguments, **values)

    monkeypatch.setattr(module, "train_on", then_the_rule)
    assert train(1) == RefusalCode.MAY_NOT_LEAVE


def test_scores_of_a_personal_model_do_not_leave_under_the_rule(guarded, tiny_plan):
    write_policy(guarded.home, with_rule())
    plan = tiny_plan.changed(personal={"steps": 1})
    task = EvaluateTask(
        plan=plan, part="test", stage=Stage.FINETUNING, server_round=1, model="personal"
    )
    state = state_of(build_network(plan.network, 0))
    assert guarded.ask("evaluate", task, state).error.code == RefusalCode.MAY_NOT_LEAVE


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_older", [False, True])
def test_a_ledger_that_was_deleted_or_rolled_back_stops_the_site(
    guarded, train, is_older, is_restarted
):
    write_policy(guarded.home, with_rule())
    ledger = guarded.home.privacy
    train(1)
    older = ledger.read_bytes()
    spent = train(2).report.privacy.epsilon
    latest, steps = ledger.read_bytes(), len(guarded.steps)
    ledger.unlink()
    if is_older:
        ledger.write_bytes(older)
    values = {"transport": guarded.start()} if is_restarted else {}
    assert train(1, Stage.PRETRAINING, **values) == RefusalCode.FAILED
    assert len(guarded.steps) == steps, "nothing was trained"
    ledger.write_bytes(latest)
    assert train(1, Stage.PRETRAINING, **values).report.privacy.epsilon > spent


def test_a_saved_result_whose_charge_is_gone_does_not_leave(guarded, train):
    """The first round was trained, its answer was lost, and the ledger was deleted."""
    write_policy(guarded.home, with_rule())
    train(1)
    home = guarded.home
    for path in (home.privacy, home.answers, home.audit, home.audit.with_suffix(".head")):
        path.unlink()
    assert train(1, transport=guarded.start()) == RefusalCode.FAILED
    assert not home.audit.exists() or [e.kind for e in read_record(home.audit).entries] == ["fault"]
