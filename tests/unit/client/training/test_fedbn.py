"""FedBN: a site's own instance norms go on, everything else is the server's."""

import pytest
import torch

from mamfed_client.training.fedbn import LocalNorms
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage
from mamfed_common.plan.norm_groups import norm_names

PRE, FINE = Stage.PRETRAINING, Stage.FINETUNING


@pytest.fixture
def norms(tmp_path, tiny_plan):
    return LocalNorms(tmp_path / "norms", tiny_plan)


def weights(plan, value):
    return {
        name: torch.full_like(t, value)
        for name, t in state_of(build_network(plan.network, 0)).items()
    }


def values(state, names):
    return {float(state[name].flatten()[0]) for name in names}


def test_the_norms_are_the_scale_and_shift_of_every_instance_norm_and_nothing_else(tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    # A fresh norm's scale is all ones and its shift all zeros; no convolution of 4 channels is.
    fresh = {
        name
        for name, t in state.items()
        if t.ndim == 1 and len(t) > 1 and (bool((t == 1).all()) or bool((t == 0).all()))
    }
    assert set(norm_names(tiny_plan.network)) <= fresh
    assert len(norm_names(tiny_plan.network)) % 2 == 0
    assert len(norm_names(tiny_plan.network)) >= 4


def test_a_round_starts_from_the_servers_weights_with_the_sites_own_norms(norms, tiny_plan):
    own = norm_names(tiny_plan.network)
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    norms.keep(weights(tiny_plan, 2.0), FINE, 2)
    begun = norms.to_train_from(weights(tiny_plan, 9.0), FINE, 3)
    assert values(begun, own) == {2.0}
    assert values(begun, begun.keys() - set(own)) == {9.0}


def test_a_round_asked_again_starts_from_the_round_before_it(norms, tiny_plan):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    norms.keep(weights(tiny_plan, 2.0), FINE, 2)
    begun = norms.to_train_from(weights(tiny_plan, 9.0), FINE, 2)
    assert values(begun, norm_names(tiny_plan.network)) == {1.0}


def test_a_round_that_the_site_missed_does_not_lose_its_norms(norms, tiny_plan):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    begun = norms.to_train_from(weights(tiny_plan, 9.0), FINE, 5)
    assert values(begun, norm_names(tiny_plan.network)) == {1.0}


def test_stage_2_begins_with_the_last_norms_of_stage_1(norms, tiny_plan):
    norms.keep(weights(tiny_plan, 1.0), PRE, 1)
    norms.keep(weights(tiny_plan, 2.0), PRE, 2)
    assert values(
        norms.to_train_from(weights(tiny_plan, 9.0), FINE, 1), norm_names(tiny_plan.network)
    ) == {2.0}


def test_an_average_is_scored_with_the_norms_of_its_own_round(norms, tiny_plan):
    for server_round in (1, 2, 3):
        norms.keep(weights(tiny_plan, float(server_round)), FINE, server_round)
    scored = norms.to_score(weights(tiny_plan, 9.0), FINE, 2)
    assert values(scored, norm_names(tiny_plan.network)) == {2.0}


def test_who_never_trained_in_the_stage_is_scored_with_the_average(norms, tiny_plan):
    norms.keep(weights(tiny_plan, 1.0), PRE, 1)
    state = weights(tiny_plan, 9.0)
    assert values(norms.to_score(state, FINE, 2), state) == {9.0}


def test_another_plan_does_not_see_the_norms(norms, tiny_plan, tmp_path):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    other = LocalNorms(tmp_path / "norms", tiny_plan.model_copy(update={"seed": 1}))
    state = weights(tiny_plan, 9.0)
    assert values(other.to_score(state, FINE, 1), state) == {9.0}


def test_another_run_of_the_plan_does_not_see_the_norms(norms, tiny_plan, tmp_path):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    state = weights(tiny_plan, 9.0)
    other = LocalNorms(tmp_path / "norms", tiny_plan, "second")
    assert values(other.to_train_from(state, FINE, 2), state) == {9.0}
    same = LocalNorms(tmp_path / "norms", tiny_plan)
    assert values(same.to_train_from(state, FINE, 2), norm_names(tiny_plan.network)) == {1.0}


def test_a_damaged_file_is_passed_over_and_said(norms, tiny_plan, tmp_path, caplog):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    norms.keep(weights(tiny_plan, 2.0), FINE, 2)
    newest = max(tmp_path.rglob("0002.safetensors"))
    newest.write_bytes(newest.read_bytes()[:40])
    begun = norms.to_train_from(weights(tiny_plan, 9.0), FINE, 3)
    assert values(begun, norm_names(tiny_plan.network)) == {1.0}
    assert "0002.safetensors is damaged" in caplog.text


def test_files_are_private(norms, tiny_plan, tmp_path):
    norms.keep(weights(tiny_plan, 1.0), FINE, 1)
    (path,) = tmp_path.rglob("0001.safetensors")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
