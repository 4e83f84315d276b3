"""The gate: every refusal, what is taken from an answer, and the line that is written first."""

import hashlib
import json
import re
from datetime import datetime

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import load

from mamfed_client.disclosure.active_policy import ActivePolicy
from mamfed_client.disclosure.answered import AnsweredQuestions
from mamfed_client.disclosure.audit_log import AuditLog, head_path_of, read_record
from mamfed_client.disclosure.gate import Gate
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.disclosure.privacy import clip, update_norm
from mamfed_client.disclosure.release import allowed_of
from mamfed_client.disclosure.round_patients import PatientsOfRound
from mamfed_client.site.policy import Policy
from mamfed_common.errors import AuditError, SetupError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import unpack_body, unpack_state, unpack_update
from mamfed_common.protocol.quantization import update_received, update_to_send
from mamfed_common.protocol.tasks import (
    EvaluateTask,
    Query,
    RefusalCode,
    SiteDescription,
    TrainReport,
    TrainTask,
)
from mamfed_common.security.signing import sign_plan

KEY = Ed25519PrivateKey.generate()
SCORING = {"part": "test", "stage": Stage.FINETUNING, "server_round": 1}
SCORE = SiteScore(
    images=9,
    dice=0.625,
    lesions=11,
    lesions_found=7,
    lesions_redrawn=6,
    redrawn_as_tissue=5,
    redrawn_minus_ring=0.0234,
    images_without_malignancy=4,
    false_positive_pixels=12.5,
    iou=0.5125,
    auroc=0.875,
    sensitivity_at_1=0.75,
    dice_at=(0.5, 0.5, 0.5, 0.5, 0.625, 0.5, 0.5, 0.5, 0.5),
)
DESCRIPTION = SiteDescription(
    site="here",
    images={"benign": {"train": 5}},
    patients={"benign": {"train": 3}},
    rows=8,
    rejected={"unreadable image": 1},
    left_out={},
    vendors={"Hologic": 3, "Anna Example 12.03.1950": 1, "unknown": 2, "Acme": 1},
)


class Place:
    """A gate whose policy, clock and record a test can reach."""

    def __init__(self, folder, plan):
        self.plan, self.path = plan, folder / "audit.jsonl"
        self.store = PlanStore(folder / "plans")
        self.now = datetime(2026, 3, 1, 12)
        self.policy, self.broken = Policy(), False
        self.gate = Gate(
            self.rules,
            self.store,
            AuditLog(self.path),
            AnsweredQuestions(folder / "answers.json"),
            b"secret",
            now=lambda: self.now,
        )
        self.start = state_of(build_network(plan.network, 0))

    def rules(self):
        if self.broken:
            raise SetupError("site.yaml: unknown key 'polisy'")
        return ActivePolicy(self.policy, (KEY.public_key(),), "fed")

    def allow(self, *metrics, arrays=("*",), **more):
        values = {"plans": {"approval": "within-bounds"}, "min_patients_to_report": 1, **more}
        self.policy = Policy.model_validate(
            values | {"release": {"arrays": arrays, "metrics": metrics}}
        )

    def order(self, kind, plan=None, **values):
        plan = plan or self.plan
        return kind(plan=plan, signature=sign_plan(KEY, plan), **values)

    def train_task(self, server_round=1):
        return self.order(TrainTask, stage=Stage.PRETRAINING, server_round=server_round)

    def ask(self, request):
        return self.gate.answered(request, self.start)

    def release(self, request, *answer, **more):
        if not isinstance(request, Query):
            self.ask(request)
        return self.gate.release(request, *answer, **more)

    def fault_of(self, call, *words):
        with pytest.raises(PolicyRefusal) as refused:
            call(*words)
        return refused.value.fault

    def entries(self):
        return read_record(self.path).entries


@pytest.fixture
def place(tmp_path, tiny_plan):
    return Place(tmp_path, tiny_plan)


@pytest.fixture
def update(tiny_plan):
    start = state_of(build_network(tiny_plan.network, 0))
    return {name: tensor + 0.25 for name, tensor in start.items()}, start


def test_by_default_a_signed_plan_waits_and_an_unsigned_one_is_forgotten(place, tiny_plan):
    query = place.order(Query)
    assert place.fault_of(place.gate.admit, query) is RefusalCode.PLAN_NOT_APPROVED
    assert [stored.plan for stored in place.store.plans()] == [tiny_plan]
    unsigned = Query(plan=tiny_plan.changed(seed=5))
    assert place.fault_of(place.gate.admit, unsigned) is RefusalCode.PLAN_NOT_SIGNED
    assert len(place.store.plans()) == 1


def test_an_approved_plan_passes_at_the_next_message(place, tiny_plan):
    place.allow("counts")
    place.policy = place.policy.model_copy(update={"plans": Policy().plans})
    query = place.order(Query)
    assert place.fault_of(place.gate.admit, query) is RefusalCode.PLAN_NOT_APPROVED
    place.store.decide(tiny_plan.sha256(), Decision.APPROVED)
    place.gate.admit(query)
    place.store.decide(tiny_plan.sha256(), Decision.REFUSED)
    assert place.fault_of(place.gate.admit, query) is RefusalCode.PLAN_REFUSED


def test_a_policy_edited_bites_at_the_next_message(place):
    place.allow("counts")
    place.gate.admit(place.order(Query))
    place.allow("counts", bounds={"max_rounds": 1})
    assert place.fault_of(place.gate.admit, place.order(Query)) is RefusalCode.PLAN_OUTSIDE_POLICY


def test_a_policy_that_cannot_be_read_lets_nothing_in_or_out(place):
    place.allow("counts")
    place.broken = True
    assert place.fault_of(place.gate.admit, place.order(Query)) is RefusalCode.POLICY_UNREADABLE
    assert (
        place.fault_of(place.release, place.order(Query), DESCRIPTION)
        is RefusalCode.POLICY_UNREADABLE
    )
    assert not place.path.exists()


def test_the_hour_holds_for_the_start_and_a_round_that_began_is_finished(place, update):
    place.allow("counts", "num_examples", bounds={"hours": "19:00-07:00"})
    task = place.train_task()
    assert place.fault_of(place.gate.admit, task) is RefusalCode.NOT_AT_THIS_HOUR
    place.now = datetime(2026, 3, 1, 23)
    place.gate.admit(task)
    place.now = datetime(2026, 3, 2, 9)
    assert place.release(task, TrainReport(num_examples={"benign": 5}, loss=1), *update)


def test_more_rounds_than_the_plan_has_are_not_trained(place):
    place.allow("counts", "num_examples")
    place.gate.admit(place.train_task(1))
    assert place.fault_of(place.gate.admit, place.train_task(2)) is RefusalCode.PLAN_OUTSIDE_POLICY


@pytest.mark.parametrize(
    ("metrics", "arrays", "kind", "values"),
    [
        ((), ("*",), Query, {}),
        (("num_examples", "dice"), ("*",), Query, {}),
        (("counts",), ("*",), TrainTask, {"stage": "pretraining", "server_round": 1}),
        (("num_examples",), ("*",), TrainTask, {"stage": "pretraining", "server_round": 1}),
        (("counts", "num_examples"), (), TrainTask, {"stage": "pretraining", "server_round": 1}),
        (
            ("counts", "num_examples"),
            ("backbone.*",),
            TrainTask,
            {"stage": "pretraining", "server_round": 1},
        ),
        (("counts", "num_examples", "loss"), ("*",), EvaluateTask, SCORING | {"part": "val"}),
    ],
)
def test_what_could_not_leave_is_not_begun(place, metrics, arrays, kind, values):
    place.allow(*metrics, arrays=arrays)
    assert (
        place.fault_of(place.gate.admit, place.order(kind, **values)) is RefusalCode.MAY_NOT_LEAVE
    )


def test_the_final_model_is_let_in_though_no_score_may_leave(place):
    place.allow("counts", "num_examples")
    for model in ("shared", "personal"):
        order = place.order(EvaluateTask, **SCORING, model=model)
        place.gate.admit(order)
        assert place.fault_of(place.release, order, SCORE) is RefusalCode.MAY_NOT_LEAVE


def test_where_the_policy_wants_no_personal_model_none_is_begun_or_told(place):
    place.allow("images", "dice", personal=True)
    order = place.order(EvaluateTask, **SCORING, model="personal")
    place.gate.admit(order)
    place.allow("images", "dice", personal=False)
    assert place.fault_of(place.gate.admit, order) is RefusalCode.NO_PERSONAL_MODEL
    assert place.fault_of(place.release, order, SCORE) is RefusalCode.NO_PERSONAL_MODEL
    place.gate.admit(place.order(EvaluateTask, **SCORING))


def test_too_few_cases_are_not_trained_on(place):
    place.allow(min_training_cases=5)
    place.gate.admit_cases(5)
    assert place.fault_of(place.gate.admit_cases, 4) is RefusalCode.TOO_FEW_CASES


def test_a_round_on_too_few_patients_is_not_trained(place):
    place.allow()
    place.gate.admit_cases(10, PatientsOfRound(10, 400))
    nine = PatientsOfRound(9, 400)
    assert place.fault_of(place.gate.admit_cases, 500, nine) is RefusalCode.TOO_FEW_CASES
    place.gate.admit_cases(5)  # no weights leave


@pytest.mark.parametrize(("at_hand", "required"), [(1, 1), (2, 1), (5, 3), (19, 10), (20, 10)])
def test_a_site_with_few_patients_trains_on_half_of_them_at_least(place, at_hand, required):
    place.allow()
    place.gate.admit_cases(100, PatientsOfRound(required, at_hand))
    fewer = PatientsOfRound(required - 1, at_hand)
    assert place.fault_of(place.gate.admit_cases, 100, fewer) is RefusalCode.TOO_FEW_CASES


def test_the_gate_checks_again_what_leaves(place, update):
    """The policy may have changed during hours of training."""
    report, task = TrainReport(num_examples={"benign": 5}, loss=1), place.train_task()
    state, start = update
    place.allow("counts", "num_examples", arrays=["backbone.*"])
    assert place.fault_of(place.release, task, report, *update) is RefusalCode.MAY_NOT_LEAVE
    place.allow("counts", "num_examples", arrays=[])
    assert place.fault_of(place.release, task, report, *update) is RefusalCode.MAY_NOT_LEAVE
    place.allow("counts", "num_examples")
    extra = {**state, "extra": torch.zeros(1)}
    place.policy = place.policy.model_copy(
        update={"release": place.policy.release.model_copy(update={"arrays": ("[!e]*",)})}
    )
    assert (
        place.fault_of(place.release, task, report, extra, start | {"extra": torch.zeros(1)})
        is RefusalCode.MAY_NOT_LEAVE
    )
    place.store.decide(place.plan.sha256(), Decision.REFUSED)
    place.allow("counts", "num_examples")
    assert place.fault_of(place.release, task, report, *update) is RefusalCode.PLAN_REFUSED
    assert not place.path.exists()


def test_allowed_weights_leave_with_their_very_bits(place, update):
    place.allow("counts", "num_examples", "loss")
    state, start = update
    content = place.release(
        place.train_task(), TrainReport(num_examples={"benign": 5}, loss=0.5), state, start
    )
    assert state_sha256(unpack_state(content, start)) == state_sha256(state)
    assert unpack_body(content, TrainReport) == TrainReport(num_examples={"benign": 5}, loss=0.5)


@pytest.mark.parametrize(
    ("metrics", "more", "loss"),
    [
        (("loss",), {}, 0.123456),
        ((), {}, None),
        (("loss",), {"min_cases_to_report": 6}, None),
        (("loss",), {"min_cases_to_report": 5}, 0.123456),
    ],
)
def test_a_loss_leaves_only_where_it_may(place, update, metrics, more, loss):
    place.allow("counts", "num_examples", *metrics, **more)
    report = TrainReport(num_examples={"benign": 5}, loss=0.123456)
    content = place.release(place.train_task(), report, *update)
    assert unpack_body(content, TrainReport).loss == loss
    assert (b"0.123456" in str(content).encode()) is (loss is not None)


@pytest.mark.parametrize(
    ("metrics", "least", "kept"),
    [
        (SiteScore.model_fields, 1, set(SiteScore.model_fields)),
        (["dice", "images"], 1, {"dice", "images"}),
        (["dice"], 1, set()),
        (["images", "lesions_found"], 1, {"images"}),
        (["images", "redrawn_as_tissue", "redrawn_minus_ring"], 1, {"images"}),
        (["false_positive_pixels", "images_without_malignancy"], 4,
         {"false_positive_pixels", "images_without_malignancy"}),
        (["false_positive_pixels", "images_without_malignancy"], 5, {"images_without_malignancy"}),
        (SiteScore.model_fields, 10, {"images", "images_without_malignancy"}),
        (SiteScore.model_fields, 9,
         set(SiteScore.model_fields) - {"false_positive_pixels", "auroc", "sensitivity_at_1"}),
        (["auroc", "images"], 1, {"images"}),
        (["sensitivity_at_1", "images", "images_without_malignancy"], 1,
         {"images", "images_without_malignancy"}),
    ],
)  # fmt: skip
def test_of_a_score_leaves_what_is_allowed_and_over_enough_images(place, metrics, least, kept):
    place.allow(*metrics, min_cases_to_report=least)
    content = place.release(place.order(EvaluateTask, **SCORING), SCORE)
    expected = SCORE.model_dump(mode="json", include=kept)
    assert unpack_body(content, SiteScore).model_dump(mode="json", exclude_none=True) == expected
    assert place.entries()[-1].values == expected
    for name in {"dice", "false_positive_pixels"} - kept:
        assert str(getattr(SCORE, name)) not in str(content)


def test_what_is_over_one_image_is_over_few(place):
    place.allow(*SiteScore.model_fields, min_cases_to_report=2)
    one = SCORE.model_copy(update={"images": 1})
    content = place.release(place.order(EvaluateTask, **SCORING), one)
    score = unpack_body(content, SiteScore)
    assert (score.images, score.dice, score.lesions, score.lesions_found) == (1, None, None, None)


def test_counts_over_no_image_leave_as_they_are(place):
    place.allow(*SiteScore.model_fields, min_cases_to_report=5)
    nothing = SCORE.model_copy(update={"images": 0, "dice": None, "lesions": 0, "lesions_found": 0})
    content = place.release(place.order(EvaluateTask, **SCORING), nothing)
    assert unpack_body(content, SiteScore).lesions == 0


def test_free_text_in_a_description_stays(place):
    place.allow("counts")
    content = place.release(place.order(Query), DESCRIPTION)
    assert unpack_body(content, SiteDescription).vendors == {"Hologic": 3, "unknown": 2, "other": 2}
    assert not re.search("Anna|1950|Acme", str(content) + place.path.read_text())


def test_clip_and_noise_are_put_on_before_the_update_leaves(place, update):
    _, start = update
    task, report = place.train_task(), TrainReport(num_examples={"benign": 5}, loss=1)
    place.allow("counts", "num_examples", privacy={"clip_norm": 0.5})
    content = place.release(task, report, *update)
    released = unpack_state(content, start)
    squares = sum(float((released[n].double() - start[n].double()).square().sum()) for n in start)
    assert squares**0.5 == pytest.approx(0.5, rel=1e-4)
    assert squares**0.5 <= 0.5
    place.allow("counts", "num_examples", privacy={"clip_norm": 0.5, "noise_multiplier": 2})
    assert place.fault_of(place.release, task, report, *update) is RefusalCode.ALREADY_ANSWERED
    place.store.decide(place.plan.sha256(), Decision.APPROVED)
    noisy = unpack_state(place.release(task, report, *update), start)
    noise = torch.cat([(noisy[n] - released[n]).flatten() for n in start])
    assert float(noise.std()) == pytest.approx(1.0, rel=0.1)
    # What the record names is what left, not what was trained.
    hashes = [entry.weights[0].sha256 for entry in place.entries()]
    assert len(set(hashes)) == 2


def test_the_clip_holds_for_what_the_server_reads_after_rounding(place, update):
    _, start = update
    change = {}
    for name, tensor in start.items():  # most values of a row just over half a step: all go up
        change[name] = torch.full_like(tensor, 0.501 if tensor.ndim > 1 else 0)
        change[name].flatten(1 if tensor.ndim > 1 else 0)[..., 0] = 127 if tensor.ndim > 1 else 0
    state = {name: tensor + 1e-4 * change[name] for name, tensor in start.items()}
    place.plan = place.plan.changed(federation={"wire": "compact"})
    sent = update_to_send(clip(state, start, 0.01), start, "compact")
    assert update_norm(update_received(sent, start, "compact"), start) > 0.010001
    place.allow("counts", "num_examples", privacy={"clip_norm": 0.01})
    report = TrainReport(num_examples={"benign": 5}, loss=1)
    content = place.release(place.train_task(), report, state, start)
    released = unpack_update(content, start, "compact").state
    assert 0.00999 < update_norm(released, start) <= 0.01


def test_the_policy_names_arrays_as_the_network_does_however_they_travel(place, update):
    place.plan = place.plan.changed(federation={"wire": "compact"})
    task, report = place.train_task(), TrainReport(num_examples={"benign": 5}, loss=1)
    names = tuple(update[0])
    place.allow("counts", "num_examples", arrays=names)
    sent = load(place.release(task, report, *update)["arrays"]["weights"].data)
    assert {name.removesuffix("/scale") for name in sent} == set(names)
    place.allow("counts", "num_examples", arrays=names[1:])
    assert place.fault_of(place.release, task, report, *update) is RefusalCode.MAY_NOT_LEAVE


@pytest.mark.parametrize("wire", ["float32", "compact"])
def test_what_left_is_recorded_array_by_array(place, update, wire):
    place.plan = place.plan.changed(federation={"wire": wire})
    place.allow("counts", "num_examples")
    content = place.release(
        place.train_task(), TrainReport(num_examples={"benign": 5}, loss=1), *update
    )
    (entry,) = place.entries()
    assert (entry.kind, entry.stage, entry.round, entry.to) == ("train", "pretraining", 1, "fed")
    assert entry.plan_sha256 == place.plan.sha256()
    assert entry.policy_sha256 == place.policy.sha256()
    assert entry.values == {"num_examples": {"benign": 5}}
    assert {w.name: (w.sha256, w.bytes) for w in entry.weights} == {
        name: (hashlib.sha256(tensor.numpy().tobytes()).hexdigest(), tensor.nbytes)
        for name, tensor in load(content["arrays"]["weights"].data).items()
    }
    assert entry.bytes == len(content["arrays"]["weights"].data) + len(content["body"]["json"])


def test_what_cannot_be_recorded_does_not_leave(place):
    place.allow("counts")
    place.release(place.order(Query), DESCRIPTION)
    head_path_of(place.path).unlink()
    with pytest.raises(AuditError):
        place.release(place.order(Query), DESCRIPTION)


def test_a_code_that_leaves_is_recorded_with_its_plan(place):
    place.allow("counts")
    place.release(place.order(Query), DESCRIPTION)
    assert place.fault_of(place.gate.admit, place.train_task()) is RefusalCode.MAY_NOT_LEAVE
    assert place.gate.release_code(RefusalCode.MAY_NOT_LEAVE) is RefusalCode.MAY_NOT_LEAVE
    place.gate.admit(place.order(Query))
    place.release(place.order(Query), DESCRIPTION)
    place.gate.release_code(RefusalCode.FAILED)  # a request that cannot be read is of no plan
    _, refused, _, unreadable = place.entries()
    assert (refused.kind, refused.values) == ("fault", {"fault": 106})
    assert (refused.plan_sha256, refused.round) == (place.plan.sha256(), 1)
    assert (unreadable.plan_sha256, unreadable.values) == ("", {"fault": 2})


def test_no_line_holds_what_may_not_leave(place):
    place.allow("images")
    place.release(place.order(EvaluateTask, **SCORING), SCORE)
    assert json.loads(place.path.read_text())["values"] == {"images": 9}


def test_how_data_are_divided_leaves_only_where_the_policy_lists_it(tiny_plan):
    described = DESCRIPTION.model_copy(update={"splits": ("0" * 64,)})
    for metrics, splits in ((["counts"], ()), (["counts", "split"], ("0" * 64,))):
        policy = Policy(release={"metrics": metrics})
        assert allowed_of(policy, Query(plan=tiny_plan), described).splits == splits
