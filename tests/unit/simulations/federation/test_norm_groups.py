"""A federation whose groups of sites have norms of their own."""

import pytest
import torch

from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import load_checkpoint, load_model
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.metrics.scores import summarise
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import with_threshold
from mamfed_common.plan.norm_groups import group_arrays, norm_names
from mamfed_common.training.inference import evaluate
from mamfed_server.run.run import Job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.arms import centralised_arm, describe_sites, local_arms
from mamfed_simulations.federation.runner import run_federation

NAMES = ("aurora", "borealis", "cirrus")
GROUPS = {"bright": ("aurora", "cirrus"), "dark": ("borealis",)}


def plan_with(tiny_plan, **federation):
    return tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 1, "learning_rate": 0.02},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 2, "learning_rate": 0.02},
        federation={**tiny_plan.federation.model_dump(), **federation},
    )


@pytest.fixture
def plan(tiny_plan):
    return plan_with(tiny_plan, norm_groups=GROUPS)


@pytest.fixture
def sites(folders, cache):
    return [Site(name, ((name, folders[name]),), cache) for name in NAMES]


@pytest.fixture
def train(sites):
    def run(plan, folder, **job):
        job = Job(plan=plan, folder=folder, num_nodes=len(NAMES), resume=True, **job)
        run_federation(sites, job, threads=1)
        return RunFolder(folder)

    return run


def final(folder):
    return load_checkpoint(folder.checkpoint_path("final")).state


def test_groups_end_with_norms_of_their_own_and_one_set_of_other_weights(tmp_path, plan, train):
    state = final(train(plan, tmp_path / "run"))
    bright, dark = (group_arrays(plan, group) for group in GROUPS)
    assert any(
        not torch.equal(state[one], state[other]) for one, other in zip(bright, dark, strict=True)
    )


def test_the_average_of_all_norms_is_that_of_the_groups(tmp_path, plan, train):
    """With every site in a group, each by its share, where no share is capped."""
    plan = plan_with(plan, max_share=1)
    folder = train(plan, tmp_path / "run")
    state, accepted = final(folder), folder.rounds()[-1].accepted
    share = {g: sum(accepted[site].share for site in sites) for g, sites in GROUPS.items()}
    for name in norm_names(plan.network):
        mean = sum(share[group] * state[f"group.{group}.{name}"] for group in GROUPS)
        torch.testing.assert_close(state[name], mean)


def test_one_group_of_all_sites_is_fedavg(tmp_path, tiny_plan, train):
    together = plan_with(tiny_plan, norm_groups={"all": NAMES})
    plain, grouped = (
        final(train(plan, tmp_path / name))
        for name, plan in (("plain", plan_with(tiny_plan)), ("grouped", together))
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(grouped[name], tensor)


def test_a_group_without_a_site_moves_as_the_average_does(tmp_path, tiny_plan, train):
    plan = plan_with(tiny_plan, norm_groups={"away": ("elsewhere",)})
    folder = train(plan, tmp_path / "run")
    state = final(folder)
    for name, plain in group_arrays(plan, "away").items():
        torch.testing.assert_close(state[name], state[plain])
    warnings = folder.read_summary()["warnings"]
    assert "norm_groups: no site of away is here; its norms follow the rest" in warnings
    assert "norm_groups: aurora is in no group; it has the norms of all sites" in warnings


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(tmp_path, plan, train):
    whole = train(plan, tmp_path / "whole")
    rounds = []
    with pytest.raises(Exception, match="stopped"):
        train(plan, tmp_path / "cut", on_round=rounds.append, stopping=lambda: len(rounds) >= 2)
    assert state_sha256(final(train(plan, tmp_path / "cut"))) == state_sha256(final(whole))


def test_each_site_is_scored_with_its_groups_norms(tmp_path, plan, train, sites):
    folder = train(plan, tmp_path / "run")
    path = folder.checkpoint_path("best")
    found = folder.read_summary()["arms"]["federated"]["sites"]
    for site in sites:
        group = next(group for group, names in GROUPS.items() if site.name in names)
        state, facts, painter = load_model(path, group)
        scores = evaluate(
            state,
            load_site(site, plan).samples(EVALUATED_ON, "test"),
            with_threshold(plan, facts.threshold),
            device=torch.device("cpu"),
            painter=painter,
        )
        assert SiteScore.model_validate(found[site.name]) == summarise(scores)


def test_a_site_keeps_models_that_need_no_group(tmp_path, plan, train):
    """The shared one as it was scored, and the personal one made of it."""
    personal = plan.changed(personal={"steps": 1})
    folder = train(personal, tmp_path / "run")
    model = load_model(folder.path / "models" / "borealis" / "personal.safetensors")
    assert model.facts.norm_group == "dark"
    shared = load_model(folder.checkpoint_path("best"), "dark")
    assert model.facts.personal.shared_sha256 == shared.facts.weights_sha256


def test_who_trains_alone_or_pools_everything_has_no_groups(tmp_path, plan, sites):
    descriptions = describe_sites(sites, plan)
    alone, _ = local_arms(sites, descriptions, plan, tmp_path)
    pooled = centralised_arm(sites, descriptions, plan, tmp_path)
    for arm in (*alone, pooled):
        assert arm.job.plan.federation.norm_groups == {}
