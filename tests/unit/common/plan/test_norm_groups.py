"""Norms by group: what a site takes of the weights that come, and what it sends back."""

import pytest
import torch

from mamfed_common.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from mamfed_common.errors import CheckpointError, PlanError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.plan.norm_groups import (
    add_group_norms,
    expected_state,
    group_arrays,
    group_of,
    groups_in,
    merge_trained,
    norm_names,
    select_group,
)

GROUPS = {"digital": ("north",), "film": ("south", "west")}


@pytest.fixture
def plan(tiny_plan):
    return changed(tiny_plan, norm_groups=GROUPS)


def changed(plan, **federation):
    return plan.changed(federation={**plan.federation.model_dump(), **federation})


def weights(plan):
    """Return weights in which every group's norms have a value of their own."""
    state = add_group_norms(state_of(build_network(plan.network, 0)), plan)
    for value, group in enumerate(GROUPS, start=5):
        for name in group_arrays(plan, group):
            state[name] = torch.full_like(state[name], value)
    return state


def test_beside_the_network_lie_the_norms_of_each_group_and_nothing_else(plan):
    plain = state_of(build_network(plan.network, 0))
    names = norm_names(plan.network)
    beside = {f"group.{group}.{name}" for group in GROUPS for name in names}
    assert names
    assert set(expected_state(plan)) == set(plain) | beside


def test_without_groups_the_weights_are_the_networks_own(tiny_plan):
    assert set(expected_state(tiny_plan)) == set(state_of(build_network(tiny_plan.network, 0)))


def test_a_site_takes_its_groups_norms_and_everyones_other_weights(plan):
    state, names = weights(plan), norm_names(plan.network)
    own = select_group(state, group_of(plan, "west"))
    assert set(own) == set(state_of(build_network(plan.network, 0)))
    for name, tensor in own.items():
        expected = torch.full_like(tensor, 6) if name in names else state[name]
        assert torch.equal(tensor, expected), name


def test_a_site_of_no_group_takes_the_average(plan):
    state = weights(plan)
    own = select_group(state, group_of(plan, "elsewhere"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def test_a_site_sends_its_groups_norms_and_leaves_the_others_as_they_came(plan):
    start = weights(plan)
    trained = {name: t + 1 for name, t in select_group(start, "digital").items()}
    sent = merge_trained(trained, start, "digital")
    assert sent.keys() == start.keys()
    for name, plain in group_arrays(plan, "digital").items():
        assert torch.equal(sent[name], trained[plain])
    for name in group_arrays(plan, "film"):
        assert torch.equal(sent[name], start[name])
    assert all(torch.equal(sent[name], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"norm_groups": {"a": ["north"], "b": ["north"]}}, "north stands in two places"),
        ({"norm_groups": {"a": ["north", "north"]}}, "north stands in two places"),
        ({"norm_groups": {"a": []}}, "a has no site"),
        ({"norm_groups": {"average": ["north"]}}, "average means the norms of all sites"),
        ({"norm_groups": {"a.b": ["north"]}}, "norm_groups"),
        ({"norm_groups": {"a": ["../north"]}}, "norm_groups"),
        ({"norm_groups": {"a": ["north"]}, "local_norms": True}, "exclude each other"),
    ],
)
def test_groups_that_make_no_sense_are_refused_by_name(tiny_plan, federation, said):
    with pytest.raises(PlanError, match=said):
        changed(tiny_plan, **federation)


@pytest.fixture
def path(tmp_path, plan):
    facts = CheckpointFacts(
        plan=plan, plan_sha256=plan.sha256(), stage=Stage.FINETUNING, server_round=1
    )
    painter = {name: t * 2 for name, t in weights(plan).items()}
    save_checkpoint(tmp_path / "best.safetensors", Checkpoint(weights(plan), facts, painter))
    return tmp_path / "best.safetensors"


def test_a_checkpoint_keeps_every_groups_norms(path, plan):
    found = load_checkpoint(path)
    assert groups_in(found.state) == ["digital", "film"]
    assert state_sha256(found.state) == state_sha256(weights(plan))


@pytest.mark.parametrize(("norms", "value"), [("digital", 5), ("film", 6), ("average", None)])
def test_a_model_is_used_with_the_norms_of_one_group(path, plan, norms, value):
    state, facts, painter = load_model(path, norms)
    array = norm_names(plan.network)[0]
    expected = weights(plan)[array] if value is None else torch.full_like(state[array], value)
    assert torch.equal(state[array], expected)
    assert torch.equal(painter[array], 2 * expected)
    assert facts.norm_group == (None if norms == "average" else norms)
    assert facts.weights_sha256 == state_sha256(state) != load_checkpoint(path).facts.weights_sha256


def test_a_model_taken_for_one_group_can_be_kept_and_read_again(path, tmp_path):
    kept = tmp_path / "kept.safetensors"
    save_checkpoint(kept, load_model(path, "film"))
    again = load_model(kept)
    assert again.facts.norm_group == "film"
    assert state_sha256(again.state) == state_sha256(load_model(path, "film").state)


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        (None, "choose those for these images with --norms"),
        ("ct", "expected one of digital, film, average"),
    ],
)
def test_the_group_must_be_named(path, norms, said):
    with pytest.raises(CheckpointError, match=said):
        load_model(path, norms)


def test_a_model_without_groups_takes_no_norms(tmp_path, tiny_plan):
    facts = CheckpointFacts(
        plan=tiny_plan, plan_sha256=tiny_plan.sha256(), stage=Stage.FINETUNING, server_round=1
    )
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint(state_of(build_network(tiny_plan.network, 0)), facts))
    assert load_model(path).facts.norm_group is None
    with pytest.raises(CheckpointError, match="no norms by group"):
        load_model(path, "film")
