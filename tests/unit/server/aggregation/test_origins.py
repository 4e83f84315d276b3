"""The length of an update is measured from where its site started, norms of a group included."""

import torch

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan.norm_groups import (
    add_group_norms,
    merge_trained,
    norm_names,
    select_group,
)
from mamfed_server.aggregation.origins import origin, parts
from mamfed_server.aggregation.validation import distance


def start_of(plan):
    """Return weights in which the digital group's norms are far from the average's."""
    state = add_group_norms(state_of(build_network(plan.network, 0)), plan)
    return {n: t + 5 if n.startswith("group.digital.") else t for n, t in state.items()}


def grouped(plan):
    groups = {"digital": ("north",), "film": ("south", "west")}
    return plan.changed(federation={**plan.federation.model_dump(), "norm_groups": groups})


def test_a_site_that_has_not_trained_goes_no_way_whatever_its_group(tiny_plan):
    plan = grouped(tiny_plan)
    start = start_of(plan)
    for site, group in {"north": "digital", "south": "film", "elsewhere": None}.items():
        untrained = merge_trained(select_group(start, group), start, group)
        assert distance(untrained, origin(start, plan, site)) == 0
    sent = merge_trained(select_group(start, "digital"), start, "digital")
    assert distance(sent, start) > 5, "from the average's norms it would seem far"


def test_what_a_site_changes_counts_wherever_it_stands(tiny_plan):
    """Also where only a hostile site changes something: the norms of another group."""
    plan = grouped(tiny_plan)
    start = start_of(plan)
    before = origin(start, plan, "north")
    for name in start:
        sent = {n: t + 1 if n == name else t for n, t in before.items()}
        assert distance(sent, before) > 0


def test_local_norms_are_measured_by_themselves(tiny_plan):
    plan = tiny_plan.changed(federation={**tiny_plan.federation.model_dump(), "local_norms": True})
    state = state_of(build_network(plan.network, 0))
    weights, norms = parts(state, plan)
    assert norms == set(norm_names(plan.network))
    assert weights | norms == set(state)
    assert not weights & norms
    assert parts(state, tiny_plan) == (frozenset(state),)


def test_without_groups_a_site_starts_from_the_weights_of_the_round(tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    assert all(torch.equal(state[n], t) for n, t in origin(state, tiny_plan, "north").items())
