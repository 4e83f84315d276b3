from pathlib import Path

import pytest

from mamfed_client.preparation.site_data import Site
from mamfed_common.errors import DataError
from mamfed_common.plan import Stage
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_simulations.federation.arms import (
    centralised_arm,
    federated_arm,
    leave_one_out_arms,
    local_arms,
    merge_local,
)

SITES = [Site(name, ((name, Path("/data") / name),), Path("/cache")) for name in ("a", "b", "c")]
OUT = Path("/runs/x")


def description(site: str, *, benign: int, malignant: int) -> SiteDescription:
    images = {"benign": {"train": benign}, "malignant": {"train": malignant}}
    return SiteDescription(
        site=site, images=images, patients={}, rows=0, rejected={}, left_out={}, vendors={}
    )


DESCRIPTIONS = {
    "a": description("a", benign=3, malignant=5),
    "b": description("b", benign=0, malignant=4),
    "c": description("c", benign=7, malignant=0),
}


def test_in_the_federated_arm_everybody_trains_and_is_measured(tiny_plan):
    job = federated_arm(SITES, tiny_plan, OUT).job
    assert (job.training_sites, job.validation_sites, job.test_sites) == (None, None, None)
    assert (job.num_nodes, job.folder) == (3, OUT)


def test_a_local_arm_trains_and_chooses_at_one_site_and_is_measured_at_all(tiny_plan):
    arms, not_trained = local_arms(SITES, DESCRIPTIONS, tiny_plan, OUT)
    assert [arm.name for arm in arms] == ["local-a", "local-b"]
    for arm, name in zip(arms, "ab", strict=True):
        assert arm.job.training_sites == arm.job.validation_sites == {name}
        assert arm.job.test_sites is None
        assert arm.sites == tuple(SITES)
    assert not_trained == {"c": "no annotated malignant training case"}


def test_a_site_without_benign_cases_skips_stage_one_alone(tiny_plan):
    arms, _ = local_arms(SITES, DESCRIPTIONS, tiny_plan, OUT)
    rounds = {arm.name: arm.job.plan.pretraining.rounds for arm in arms}
    assert rounds == {"local-a": 1, "local-b": 0}


def test_the_quorum_of_a_lone_trainer_is_one(tiny_plan):
    strict = tiny_plan.changed(finetuning={**tiny_plan.finetuning.model_dump(), "quorum": 3})
    arms, _ = local_arms(SITES, DESCRIPTIONS, strict, OUT)
    jobs = [*[arm.job for arm in arms], centralised_arm(SITES, DESCRIPTIONS, strict, OUT).job]
    assert {job.plan.stage(Stage.FINETUNING).quorum for job in jobs} == {1}


def test_in_the_centralised_arm_only_the_pool_trains_and_only_hospitals_measure(tiny_plan):
    arm = centralised_arm(SITES, DESCRIPTIONS, tiny_plan, OUT)
    pool = arm.sites[-1]
    assert arm.job.training_sites == {pool.name}
    assert pool.cohorts == tuple(site.cohorts[0] for site in SITES)
    assert arm.job.validation_sites == arm.job.test_sites == {"a", "b", "c"}
    assert arm.job.num_nodes == 4


def test_where_rounds_count_steps_every_arm_takes_as_many_in_all(tiny_plan):
    """Stage 1: a and c train; stage 2: a and b. Each takes its own 3 or 5 steps a round."""
    plan = tiny_plan.changed(
        pretraining={"rounds": 2, "local_steps": 3, "learning_rate": 0.001},
        finetuning={"rounds": 2, "local_steps": 5, "learning_rate": 0.001},
    )
    pool = DESCRIPTIONS | {"centralised": description("centralised", benign=10, malignant=9)}
    arm = centralised_arm(SITES, DESCRIPTIONS, plan, OUT)
    both = {Stage.PRETRAINING: 6, Stage.FINETUNING: 10}
    assert arm.steps(pool) == both
    assert federated_arm(SITES, plan, OUT).steps(DESCRIPTIONS) == both
    alone, _ = local_arms(SITES, DESCRIPTIONS, plan, OUT)
    assert [a.steps(DESCRIPTIONS)[Stage.FINETUNING] for a in alone] == [5, 5]


def test_epochs_of_the_pool_are_as_many_images_anyway(tiny_plan):
    plan = centralised_arm(SITES, DESCRIPTIONS, tiny_plan, OUT).job.plan
    assert plan.finetuning.local_epochs == tiny_plan.finetuning.local_epochs


def test_a_site_that_is_left_out_neither_trains_nor_chooses(tiny_plan):
    tested = {
        name: d.model_copy(update={"images": {**d.images, "malignant": {"test": count}}})
        for (name, d), count in zip(DESCRIPTIONS.items(), (2, 1, 0), strict=True)
    }
    arms = leave_one_out_arms(SITES, tested, tiny_plan, OUT)
    assert [arm.name for arm in arms] == ["without-a", "without-b"], "c has nothing to be tested on"
    job = arms[0].job
    assert job.training_sites == job.validation_sites == {"b", "c"}
    assert job.test_sites == {"a"}


def test_a_site_called_centralised_cannot_be_compared(tiny_plan):
    clash = [*SITES, Site("centralised", (), Path("/cache"))]
    with pytest.raises(DataError, match="centralised"):
        centralised_arm(clash, DESCRIPTIONS, tiny_plan, OUT)


def test_steps_count_the_training_sites_only(tiny_plan):
    whole = federated_arm(SITES, tiny_plan, OUT).steps(DESCRIPTIONS)
    assert whole == {Stage.PRETRAINING: 2 + 0 + 4, Stage.FINETUNING: 3 + 2 + 0}
    alone = local_arms(SITES, DESCRIPTIONS, tiny_plan, OUT)[0][0].steps(DESCRIPTIONS)
    assert alone == {Stage.PRETRAINING: 2, Stage.FINETUNING: 3}


def test_a_round_in_steps_has_as_many_at_every_site_that_trains(tiny_plan):
    counted = {"rounds": 2, "local_steps": 7, "learning_rate": 1e-3}
    plan = tiny_plan.changed(pretraining=counted, finetuning=counted)
    whole = federated_arm(SITES, plan, OUT).steps(DESCRIPTIONS)
    assert whole == {Stage.PRETRAINING: 2 * 7, Stage.FINETUNING: 2 * 7}
    every = plan.changed(finetuning={**counted, "benign_only_sites": True})
    assert federated_arm(SITES, every, OUT).steps(DESCRIPTIONS)[Stage.FINETUNING] == 3 * 7


def test_a_site_without_cancers_never_trains_alone(tiny_plan):
    every = {**tiny_plan.finetuning.model_dump(), "benign_only_sites": True}
    plan = tiny_plan.changed(finetuning=every)
    arms, not_trained = local_arms(SITES, DESCRIPTIONS, plan, OUT)
    assert [arm.name for arm in arms] == ["local-a", "local-b"]
    assert list(not_trained) == ["c"]


def test_local_results_are_each_models_own_patients_and_the_rest_is_kept_apart():
    def score(dice):
        counts = dict.fromkeys(("lesions", "lesions_found", "images_without_malignancy"), 1)
        dice_at = [dice - 0.1] * 9
        return (
            {"images": 1, "dice": dice, "false_positive_pixels": 0.0}
            | counts
            | {"dice_at": dice_at}
        )

    def summary(**dice):
        return {"arms": {"local": {"sites": {s: score(d) for s, d in dice.items()}}}}

    merged = merge_local({"a": summary(a=0.5, b=0.1), "b": summary(a=0.2, b=0.7)}, {"c": "none"})
    assert merged["mean_dice"] == pytest.approx(0.6)
    assert merged["mean_dice_at_half"] == pytest.approx(0.5)
    assert merged["sites"] == {"a": score(0.5), "b": score(0.7)}
    assert merged["across"]["a"]["b"] == score(0.1)
    assert merged["not_trained"] == {"c": "none"}
