import pytest

from mamfed_common.errors import PlanError
from mamfed_common.plan import TrainingPlan, parse_plan, read_plan


def test_yaml_round_trip_keeps_the_plan_and_its_hash(tiny_plan):
    again = parse_plan(tiny_plan.to_yaml(), "plan.yaml")
    assert again == tiny_plan
    assert again.sha256() == tiny_plan.sha256()


def test_an_empty_file_is_the_default_plan_at_1536():
    plan = parse_plan("", "plan.yaml")
    assert plan == TrainingPlan()
    assert plan.image_size == 1536


def test_any_change_changes_the_hash(tiny_plan):
    assert tiny_plan.changed(seed=1).sha256() != tiny_plan.sha256()


def test_the_hash_ignores_how_the_plan_was_written():
    terse, verbose = "image_size: 64", "seed: 0\nprecision: auto\nimage_size: 64\n"
    assert parse_plan(terse, "p").sha256() == parse_plan(verbose, "p").sha256()


def test_numbers_in_exponent_notation_are_read():
    assert parse_plan("finetuning: {rounds: 1, learning_rate: 8e-3}", "p").finetuning.rounds == 1


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("sizes: 3", "unknown key 'sizes'"),
        ("pretraining: {rounds: 1, learning_rate: 0.1, epochs: 2}", "pretraining.epochs"),
        ("image_size: 0", "image_size: found 0"),
        ("image_size: big", "image_size: found 'big'"),
        ("seed: 1\nseed: 2", "'seed' is given twice"),
        ("finetuning: {learning_rate: 0.1}", "finetuning.rounds"),
        ("evaluation: {validation_fraction: 0.6, test_fraction: 0.5}", "nothing to train on"),
        ("evaluation: {folds: 5, fold: 5}", "fold is 5, but there are 5 folds"),
        ("evaluation: {fold: 1}", "fold is 1, but there are no folds"),
        ("evaluation: {folds: 1}", "evaluation.folds: found 1"),
        ("corruption: {paint: 1.5}", "corruption.paint"),
        ("network: {channels: [8, 8], first_skip_level: 5}", "first_skip_level"),
        ("seed: .nan", "seed"),
        ("[1, 2]", "expected a mapping"),
        ("seed: [", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_wrong_plan_is_one_line_that_names_the_culprit(text, culprit):
    with pytest.raises(PlanError) as caught:
        parse_plan(text, "plan.yaml")
    assert culprit in str(caught.value)
    assert str(caught.value).startswith("plan.yaml: ")
    assert "\n" not in str(caught.value)


def test_both_stages_without_rounds_are_refused():
    none = {"rounds": 0, "learning_rate": 0.1}
    with pytest.raises(PlanError, match="nothing would be trained"):
        TrainingPlan().changed(pretraining=none, finetuning=none)


def test_a_missing_plan_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.yaml"):
        read_plan(tmp_path / "nowhere.yaml")


def test_a_plan_of_other_bytes_than_text_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="not UTF-8"):
        read_plan(tmp_path / "p.yaml")
