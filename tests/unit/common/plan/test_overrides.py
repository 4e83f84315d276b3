import pytest

from mamfed_common.errors import PlanError
from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.overrides import with_overrides


def test_settings_replace_values_and_leave_the_others():
    plan = with_overrides(
        TrainingPlan(),
        ["finetuning.rounds=20", "network.channels=[8, 16]", "network.first_skip_level=1",
         "finetuning.learning_rate=8e-3", "evaluation.folds=3", "evaluation.folds=null"],
    )  # fmt: skip
    assert plan.finetuning == TrainingPlan().finetuning.model_copy(
        update={"rounds": 20, "learning_rate": 8e-3}
    )
    assert (plan.network.channels, plan.evaluation.folds) == ((8, 16), None)
    assert with_overrides(plan, []) is plan


def test_a_groups_sites_can_be_set():
    plan = with_overrides(TrainingPlan(), ["federation.norm_groups={film: [south, west]}"])
    assert plan.federation.norm_groups == {"film": ("south", "west")}


@pytest.mark.parametrize(
    ("settings", "epochs", "steps"),
    [
        (["finetuning.local_epochs=2"], 2, None),
        (["finetuning.local_epochs=2", "finetuning.local_steps=5"], None, 5),
        (["finetuning.local_steps=null"], 1, None),
    ],
)
def test_the_length_of_a_round_that_is_given_replaces_the_other(settings, epochs, steps):
    stage = with_overrides(TrainingPlan(), settings).finetuning
    assert (stage.local_epochs, stage.local_steps) == (epochs, steps)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("finetuning.round=3", "--set: unknown key 'finetuning.round', did you mean 'rounds'?"),
        ("finetunning.rounds=3", "unknown key 'finetunning', did you mean 'finetuning'?"),
        ("rounds=3", "did you mean 'pretraining.rounds' or 'finetuning.rounds'?"),
        ("seed.x=3", "unknown key 'seed.x'"),
        ("finetuning.rounds", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("finetuning.rounds=-1", "--set: finetuning.rounds: found -1"),
        ("finetuning.rounds=1, 2", "found [1, 2]"),
        ("network.channels=[8", "not valid YAML"),
        ("finetuning.rounds=", "finetuning.rounds: found"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(setting, words):
    with pytest.raises(PlanError) as caught:
        with_overrides(TrainingPlan(), [setting])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
