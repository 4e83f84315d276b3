import pytest

from mamfed_common.errors import PlanError
from mamfed_common.plan import Stage, StagePlan, TrainingPlan, parse_plan, read_plan

STAGE = "rounds: 1, learning_rate: 0.1"


def test_yaml_round_trip_keeps_the_plan_and_its_hash(tiny_plan):
    again = parse_plan(tiny_plan.to_yaml(), "plan.yaml")
    assert again == tiny_plan
    assert again.sha256() == tiny_plan.sha256()


@pytest.mark.parametrize("text", ["", "\n", "# image_size: 256\n"])
def test_an_empty_file_is_no_plan(text):
    with pytest.raises(PlanError, match=r"plan\.yaml: is empty"):
        parse_plan(text, "plan.yaml")


def test_the_default_plan_is_at_1536():
    assert TrainingPlan().image_size == 1536


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
        ("finetuning: {learning_rate: 0}", "finetuning.learning_rate: found 0"),
        ("finetuning: 20", "finetuning: found 20"),
        ("finetuning: {round: 20}", "unknown key 'finetuning.round', did you mean 'rounds'?"),
        ("local_steps: 5", "did you mean 'pretraining.local_steps' or 'finetuning.local_steps'?"),
        ("image_sizes: 3", "unknown key 'image_sizes', did you mean 'image_size'?"),
        ("evaluation: {validation_fraction: 0.6, test_fraction: 0.5}", "nothing to train on"),
        ("evaluation: {folds: 5, fold: 5}", "fold is 5, but there are 5 folds"),
        ("evaluation: {fold: 1}", "fold is 1, but there are no folds"),
        ("evaluation: {folds: 1}", "evaluation.folds: found 1"),
        ("corruption: {paint: 1.5}", "corruption.paint"),
        ("network: {channels: [8, 8], first_skip_level: 5}", "first_skip_level"),
        ("seed: .nan", "seed"),
        (f"finetuning: {{{STAGE}, local_steps: 0}}", "finetuning.local_steps: found 0"),
        (f"finetuning: {{{STAGE}, local_epochs: 0}}", "finetuning.local_epochs: found 0"),
        (
            f"pretraining: {{{STAGE}, local_epochs: 2, local_steps: 9}}",
            "pretraining: local_epochs is 2 and local_steps is 9: a round has one of the two",
        ),
        (f"pretraining: {{{STAGE}, beside: benign}}", "unknown key 'pretraining.beside'"),
        (f"finetuning: {{{STAGE}, beside: malignant}}", "finetuning.beside: found 'malignant'"),
        ("losses: {empty: -1}", "losses.empty: found -1"),
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


@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
def test_a_stage_that_is_given_in_part_has_the_default_stages_other_values(stage):
    default = getattr(TrainingPlan(), stage)
    for key, value in (("rounds", 20), ("learning_rate", 0.5), ("quorum", 2)):
        found = getattr(parse_plan(f"{stage}: {{{key}: {value}}}", "p"), stage)
        assert found == default.model_copy(update={key: value})
    assert parse_plan(f"{stage}: {{}}", "p") == TrainingPlan()


def test_a_round_is_of_epochs_or_of_steps_whichever_the_plan_gives():
    found = [
        parse_plan(f"finetuning: {{{STAGE}{more}}}", "p").finetuning
        for more in ("", ", local_epochs: 3", ", local_steps: 4", ", local_steps: null")
    ]
    assert [(s.local_epochs, s.local_steps) for s in found] == [
        (None, TrainingPlan().finetuning.local_steps),
        (3, None),
        (None, 4),
        (1, None),
    ]
    assert [stage.in_words() for stage in found[1:]] == ["3 epochs", "4 steps", "1 epoch"]


def test_a_plan_that_counts_steps_survives_being_written(tiny_plan):
    stage = {"rounds": 2, "local_steps": 3, "learning_rate": 1e-3}
    plan = tiny_plan.changed(finetuning=stage)
    assert parse_plan(plan.to_yaml(), "p") == plan
    assert plan.changed(seed=1).finetuning.local_steps == 3


@pytest.mark.parametrize(
    ("given", "images", "steps"),
    [
        ({"local_epochs": 3}, 7, 6),
        ({"local_epochs": 3}, 8, 6),
        ({"local_epochs": 3}, 0, 0),
        ({"local_steps": 5}, 1, 5),
        ({"local_steps": 5}, 900, 5),
        ({"local_steps": 5}, 0, 0),
    ],
)
def test_the_steps_of_a_round_by_a_sites_images(given, images, steps):
    stage = StagePlan(rounds=1, learning_rate=0.1, batch_size=4, **given)
    assert stage.steps(images) == steps


HELD = {"malignant": 9, "benign": 5, "without_malignancy": 8}
NO_CANCER = {**HELD, "malignant": 0}


@pytest.mark.parametrize(
    ("head", "losses", "finetuning", "held", "used", "steps"),
    [
        ("subtraction", {}, {}, HELD, {"malignant": 9, "benign": 5}, 3),
        ("subtraction", {"benign": 0}, {}, HELD, {"malignant": 9}, 3),
        ("direct", {}, {}, HELD, {"malignant": 9}, 3),
        ("direct", {"empty": 1}, {}, HELD, {"malignant": 9, "benign": 5}, 3),
        ("subtraction", {"benign": 0, "empty": 1}, {}, HELD, {"malignant": 9, "benign": 5}, 3),
        ("subtraction", {}, {}, NO_CANCER, {}, 0),
        ("subtraction", {}, {"benign_only_sites": True}, NO_CANCER, {"benign": 5}, 3),
        ("direct", {}, {"benign_only_sites": True}, NO_CANCER, {}, 0),
        (
            *("subtraction", {}, {"beside": "without_malignancy"}, HELD),
            *({"malignant": 9, "without_malignancy": 8}, 3),
        ),
        (
            *("direct", {"empty": 1}, {"beside": "without_malignancy", "benign_only_sites": True}),
            *(NO_CANCER, {"without_malignancy": 8}, 4),
        ),
        ("subtraction", {}, {}, {"malignant": 2}, {"malignant": 2}, 1),
    ],
)
def test_what_a_site_uses_in_stage_2(tiny_plan, head, losses, finetuning, held, used, steps):
    stage = {"rounds": 1, "learning_rate": 0.1, "batch_size": 4, **finetuning}
    network = {**tiny_plan.network.model_dump(), "head": head}
    plan = tiny_plan.changed(network=network, losses=losses, finetuning=stage)
    found = plan.images_used(Stage.FINETUNING, held)
    assert found == used
    assert plan.steps(Stage.FINETUNING, found) == steps


def test_stage_1_uses_benign_images_alone(tiny_plan):
    plan = tiny_plan.changed(losses={"empty": 1})
    assert plan.images_used(Stage.PRETRAINING, HELD) == {"benign": 5}
    assert plan.images_used(Stage.PRETRAINING, {"malignant": 9}) == {}
