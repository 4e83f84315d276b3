"""Each question is answered once, within a budget, and over enough patients."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mamfed_client.disclosure.active_policy import ActivePolicy
from mamfed_client.disclosure.answered import AnsweredQuestions
from mamfed_client.disclosure.audit_log import AuditLog, read_record
from mamfed_client.disclosure.gate import Gate
from mamfed_client.disclosure.patients_behind import PatientsBehind
from mamfed_client.disclosure.plan_admission import PolicyRefusal, held_out_fractions
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.site.policy import Policy
from mamfed_common.errors import SetupError
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import unpack_body
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
OPEN = {
    "plans": {"approval": "within-bounds"},
    "release": {
        "arrays": ["*"],
        "metrics": ["counts", "num_examples", "loss", *SiteScore.model_fields],
    },
}
SCORE = SiteScore(
    images=40,
    dice=0.5,
    lesions=41,
    lesions_found=20,
    images_without_malignancy=30,
    false_positive_pixels=3.5,
)
FINE = {"stage": Stage.FINETUNING, "server_round": 1}


def people(*numbers, content="x"):
    return {f"p{number}": content for number in numbers}


class Desk:
    """A gate, and what a coordinator may ask of it."""

    def __init__(self, folder, plan):
        self.plan, self.folder, self.policy = plan, folder, Policy.model_validate(OPEN)
        self.store = PlanStore(folder / "plans")
        self.audit = folder / "audit.jsonl"
        self.weights = [state_of(build_network(plan.network, seed)) for seed in range(3)]
        self.reopen()

    def reopen(self):
        self.gate = Gate(
            lambda: ActivePolicy(self.policy, (KEY.public_key(),), "fed"),
            self.store,
            AuditLog(self.audit),
            AnsweredQuestions(self.folder / "answers.json"),
            b"secret",
        )

    def allow(self, **more):
        self.policy = Policy.model_validate(OPEN | more)

    def score(self, weights=0, *, malignant=range(20), others=range(50, 80), plan=None, **values):
        plan = plan or self.plan
        values = {"part": "test", **FINE, **values}
        task = EvaluateTask(plan=plan, signature=sign_plan(KEY, plan), **values)
        self.gate.admit(task)
        if earlier := self.gate.answered(task, self.weights[weights]):
            return unpack_body(earlier, SiteScore)
        behind = PatientsBehind(people(*malignant), people(*others))
        score = SCORE
        if not others:
            nobody = {"images_without_malignancy": 0, "false_positive_pixels": None}
            score = SCORE.model_copy(update=nobody)
        return unpack_body(self.gate.release(task, score, behind=behind), SiteScore)

    def train(self, weights=0, *, trained=0.25, malignant=range(20), **values):
        task = TrainTask(plan=self.plan, signature=sign_plan(KEY, self.plan), **(FINE | values))
        self.gate.admit(task)
        start = self.weights[weights]
        self.gate.answered(task, start)
        state = {name: tensor + trained for name, tensor in start.items()}
        report = TrainReport(num_examples={"malignant": 40}, loss=0.5)
        behind = PatientsBehind(people(*malignant))
        return unpack_body(self.gate.release(task, report, state, start, behind), TrainReport)

    def fault(self, call, *words, **values):
        with pytest.raises(PolicyRefusal) as refused:
            call(*words, **values)
        self.gate.release_code(refused.value.fault)
        return refused.value.fault


@pytest.fixture
def desk(tmp_path, tiny_plan):
    return Desk(tmp_path, tiny_plan)


@pytest.mark.parametrize(
    "values",
    [
        {"part": "train"},
        {"part": "val", "threshold": 0.5},
        {"threshold": 0.49},
        {"threshold": 0.02},
        {"stage": Stage.PRETRAINING},
        {"server_round": 9},
        {"part": "val", "server_round": 9},
    ],
)
def test_what_no_honest_run_asks_is_not_scored(desk, values):
    assert desk.fault(desk.score, **values) is RefusalCode.PLAN_OUTSIDE_POLICY
    (line,) = read_record(desk.audit).entries
    assert (line.kind, line.part) == ("fault", values.get("part", "test"))
    assert line.threshold == values.get("threshold")


def test_a_round_that_the_plan_does_not_validate_is_not_scored(desk, tiny_plan):
    finetuning = tiny_plan.finetuning.model_copy(update={"rounds": 4})
    evaluation = tiny_plan.evaluation.model_copy(update={"every": 2})
    desk.plan = tiny_plan.changed(finetuning=finetuning, evaluation=evaluation)
    assert desk.fault(desk.score, part="val") is RefusalCode.PLAN_OUTSIDE_POLICY
    assert desk.score(part="val", server_round=2).images == 40


def test_one_of_49_thresholds_is_answered_and_once(desk):
    answers = [desk.score(threshold=0.3)]
    for number in range(1, 50):
        if number != 15:  # 0.3 again
            desk.fault(desk.score, threshold=number / 50)
    assert len(answers) == 1
    kinds = [line.kind for line in read_record(desk.audit).entries]
    assert kinds == ["evaluate"] + ["fault"] * 48


def test_the_same_round_with_other_weights_is_answered_once(desk):
    assert desk.score(0, part="val").dice == 0.5
    for weights in (1, 2):
        assert desk.fault(desk.score, weights, part="val") is RefusalCode.ALREADY_ANSWERED
    assert desk.score(1).dice == 0.5, "the final test is another question"
    assert desk.fault(desk.score, 2) is RefusalCode.ALREADY_ANSWERED
    assert desk.fault(desk.score, 1, server_round=1, threshold=0.3) is RefusalCode.ALREADY_ANSWERED
    assert desk.score(1, model="personal").dice == 0.5
    desk.train(0)
    for weights in (1, 2):
        assert desk.fault(desk.train, weights) is RefusalCode.ALREADY_ANSWERED
    desk.store.decide(desk.plan.sha256(), Decision.APPROVED)
    assert desk.score(2, part="val").dice == 0.5
    desk.train(1)


def test_a_question_asked_again_gets_the_same_answer_after_a_restart(desk):
    first, trained = desk.score(), desk.train()
    desk.reopen()
    assert desk.score(malignant=range(3)) == first, "the answer comes from the disk"
    assert desk.train() == trained
    assert desk.fault(desk.train, trained=0.26) is RefusalCode.ALREADY_ANSWERED
    lines = read_record(desk.audit).entries
    assert [line.again for line in lines] == [None, None, True, True, None]
    desk.allow(release={"arrays": ["*"], "metrics": ["counts", "num_examples", "images"]})
    assert desk.score().model_dump(exclude_none=True) == {"images": 40}


def test_over_fewer_than_ten_patients_no_figure_leaves(desk):
    assert Policy().min_patients_to_report == 10
    assert desk.fault(desk.score, malignant=range(9), others=range(20, 29)) is (
        RefusalCode.TOO_FEW_PATIENTS
    )
    assert desk.fault(desk.score, malignant=range(1), others=()) is RefusalCode.TOO_FEW_PATIENTS
    some = desk.score(malignant=range(10), others=range(20, 29)).model_dump(exclude_none=True)
    assert some == {"images": 40, "dice": 0.5, "lesions": 41, "lesions_found": 20}
    line = read_record(desk.audit).entries[-1]
    assert line.patients == {"images": 10, "images_without_malignancy": 9}
    assert line.withheld == {"images_without_malignancy": "9 patients, expected 10 or more"}
    assert desk.train(malignant=range(9)).loss is None


def test_two_groups_of_patients_are_equal_or_differ_by_many(desk, tiny_plan):
    assert desk.score(malignant=range(20), others=()).images == 40

    def other_plan(seed):
        return tiny_plan.changed(
            evaluation=tiny_plan.evaluation.model_copy(update={"split_seed": seed})
        )

    near = other_plan(1)
    assert desk.fault(desk.score, plan=near, malignant=range(21), others=()) is (
        RefusalCode.TOO_FEW_PATIENTS
    )
    assert desk.fault(desk.score, plan=near, malignant=range(5, 20), others=()) is (
        RefusalCode.TOO_FEW_PATIENTS
    )
    assert desk.score(plan=near, malignant=range(30), others=()).images == 40
    assert desk.score(plan=other_plan(2), malignant=range(20), others=()).images == 40


def test_a_year_has_a_budget(desk, tiny_plan):
    desk.allow(bounds={"max_rounds_a_year": 2, "max_scores_a_year": 3, "max_splits_a_year": 1})
    for seed in (1, 2):
        desk.plan = tiny_plan.changed(seed=seed)
        desk.train()
    desk.train()
    desk.plan = tiny_plan.changed(seed=3)
    assert desk.fault(desk.train) is RefusalCode.BUDGET_SPENT
    desk.score()
    evaluation = tiny_plan.evaluation.model_copy(update={"split_seed": 5})
    other = tiny_plan.changed(evaluation=evaluation)
    assert desk.fault(desk.score, plan=other) is RefusalCode.BUDGET_SPENT
    desk.score(part="val")
    desk.score(model="personal")
    desk.plan = tiny_plan.changed(seed=4)
    assert desk.fault(desk.score) is RefusalCode.BUDGET_SPENT


def test_what_was_answered_over_a_year_ago_is_not_counted(desk, tiny_plan):
    desk.allow(bounds={"max_rounds_a_year": 1})
    desk.train()
    memory = AnsweredQuestions(desk.folder / "answers.json")
    old = (datetime.now(UTC) - timedelta(days=366)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (line,) = memory.read().questions
    (desk.folder / "answers.json").unlink()
    memory.add(line.model_copy(update={"time": old}), [])
    assert desk.fault(desk.train, 1) is RefusalCode.ALREADY_ANSWERED
    desk.plan = tiny_plan.changed(seed=2)
    desk.train()


def test_a_damaged_memory_answers_nothing(desk):
    desk.score()
    path = desk.folder / "answers.json"
    path.write_text(path.read_text().replace("test shared", "test shares"))
    for call in (desk.score, desk.train):
        with pytest.raises(SetupError, match=r"answers\.json: damaged"):
            call()
    assert path.stat().st_mode & 0o777 == 0o600


def test_small_counts_are_rounded(desk, tiny_plan):
    description = SiteDescription(
        site="here",
        images={"malignant": {"train": 7, "val": 2, "test": 33}},
        patients={"malignant": {"train": 3, "val": 1, "test": 12}},
        rows=70,
        rejected={"unreadable image": 1},
        left_out={"no mask": 0, "both": 11},
        vendors={"Hologic": 4},
    )
    content = desk.gate.release(
        Query(plan=tiny_plan, signature=sign_plan(KEY, tiny_plan)), description
    )
    told = unpack_body(content, SiteDescription)
    assert told.images == {"malignant": {"train": 7, "val": 10, "test": 33}}
    assert told.patients == {"malignant": {"train": 10, "val": 10, "test": 12}}
    assert (told.rejected, told.left_out) == ({"unreadable image": 10}, {"no mask": 0, "both": 11})
    assert told.vendors == {"Hologic": 10}


def test_a_score_is_recorded_with_all_that_was_asked(desk):
    desk.score(part="test", threshold=0.3, run="first")
    line = read_record(desk.audit).entries[0]
    assert (line.part, line.threshold, line.stage, line.round) == ("test", 0.3, "finetuning", 1)
    assert line.run == "first"
    assert len(line.asked_sha256) == 64
    assert line.patients == {"images": 20, "images_without_malignancy": 30}
    assert line.values["dice"] == 0.5


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"test_fraction": 0.001}, "min_held_out_part"),
        ({"validation_fraction": 0.001}, "min_held_out_part"),
        ({"folds": 100}, "min_held_out_part"),
        ({"test_fraction": 0.9, "validation_fraction": 0.09}, "max_held_out"),
        ({"test_fraction": 0.2, "validation_fraction": 0.79}, "max_held_out"),
    ],
)
def test_a_split_that_leaves_one_patient_is_refused(desk, tiny_plan, changes, key):
    evaluation = tiny_plan.evaluation.model_copy(update=changes)
    desk.plan = tiny_plan.changed(evaluation=evaluation)
    assert desk.fault(desk.train) is RefusalCode.PLAN_OUTSIDE_POLICY
    with pytest.raises(PolicyRefusal, match=key):
        desk.train()


def test_no_validation_and_two_folds_are_usual(tiny_plan):
    evaluation = tiny_plan.evaluation
    assert held_out_fractions(evaluation.model_copy(update={"validation_fraction": 0.0})) == [
        evaluation.test_fraction
    ]
    folds = evaluation.model_copy(update={"folds": 2, "validation_fraction": 0.15})
    assert held_out_fractions(folds) == [0.5, 0.075]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"network": {"channels": (12_000,) * 6}}, "max_parameters"),
        ({"network": {"channels": (65_536,) * 16}}, "max_parameters"),
        ({"image_size": 2048, "finetuning": {"batch_size": 16, "rounds": 1,
          "learning_rate": 0.001}}, "max_memory_gib"),
        ({"image_size": 8192}, "max_image_size"),
    ],
)  # fmt: skip
def test_a_huge_plan_is_refused_before_anything_is_built(desk, tiny_plan, changes, key):
    if "finetuning" in changes:
        changes = changes | {"network": {}}
    desk.plan = tiny_plan.changed(**changes)
    with pytest.raises(PolicyRefusal, match=key):
        desk.train()
