"""The strategies behind the round loop: which one a plan gets, and what each makes of updates."""

import pytest
import torch
from tests.unit.server.sites import IMAGES, with_federation

from mamfed_common.plan import Stage
from mamfed_server.aggregation import group_norms
from mamfed_server.aggregation.update_store import UpdateFolder
from mamfed_server.strategy.fedavg import FedAvg, FedBN, FedProx
from mamfed_server.strategy.fedopt import FedAdam, FedAvgM
from mamfed_server.strategy.protocol import RoundUpdates, StrategyContext
from mamfed_server.strategy.registry import build_strategy
from mamfed_server.strategy.robust import Median, TrimmedMean


@pytest.fixture
def updates(tmp_path, tiny_plan):
    def make(*values, plan=tiny_plan):
        store = UpdateFolder(tmp_path / "updates")
        store.clear()
        names = [f"site-{number}" for number in range(len(values))]
        for name, value in zip(names, values, strict=True):
            store.keep(name, {"w": torch.tensor([value])})
        examples = {name: {"malignant": 10 * 4**n} for n, name in enumerate(names)}
        start = {"w": torch.tensor([0.0])}
        return RoundUpdates(plan, Stage.FINETUNING, 1, start, examples, store)

    return make


def context(plan, folder):
    return StrategyContext(plan, folder, lambda warning: None)


@pytest.mark.parametrize(
    ("federation", "expected"),
    [
        ({}, FedAvg),
        ({"proximal_mu": 0.1}, FedProx),
        ({"local_norms": True}, FedBN),
        ({"server_optimiser": "momentum"}, FedAvgM),
        ({"server_optimiser": "adam", "server_learning_rate": 0.01}, FedAdam),
        ({"server_optimiser": "momentum", "proximal_mu": 0.1}, FedAvgM),
    ],
)
def test_the_plans_settings_name_the_strategy(tiny_plan, tmp_path, federation, expected):
    strategy = build_strategy(context(with_federation(tiny_plan, **federation), tmp_path))
    assert type(strategy) is expected


def test_fedavg_weighs_by_examples(updates, tiny_plan, tmp_path):
    plan = with_federation(tiny_plan, weights="examples", max_share=1, max_share_ratio=4)
    state, shares = FedAvg(context(plan, tmp_path)).aggregate_train(updates(0.0, 5.0, plan=plan))
    assert shares == {"site-0": 0.2, "site-1": 0.8}
    assert state["w"].item() == pytest.approx(4)


def test_a_wild_update_moves_neither_the_median_nor_the_trimmed_mean(updates, tiny_plan, tmp_path):
    for strategy in (Median, TrimmedMean):
        robust = strategy(context(tiny_plan, tmp_path))
        state, shares = robust.aggregate_train(updates(1.0, 2.0, 1e9))
        assert state["w"].item() == 2
        assert sum(shares.values()) == pytest.approx(1)
    state, _ = Median(context(tiny_plan, tmp_path)).aggregate_train(updates(1.0, 2.0, 4.0, 1e9))
    assert state["w"].item() == 3


@pytest.mark.parametrize(("num_sites", "cut"), [(1, 0), (2, 0), (3, 1), (9, 1), (10, 2), (15, 3)])
def test_a_fifth_is_dropped_on_each_side(tiny_plan, tmp_path, num_sites, cut):
    assert TrimmedMean(context(tiny_plan, tmp_path)).dropped(num_sites) == cut


@pytest.mark.parametrize("weights", ["examples", "sqrt", "equal"])
@pytest.mark.parametrize("max_share", [0.3, 0.5])
@pytest.mark.parametrize(
    "strategy",
    [
        {},
        {"proximal_mu": 0.1},
        {"local_norms": True},
        {"server_optimiser": "momentum"},
        {"strategy": "trimmed_mean"},
        {"strategy": "median"},
    ],
)
def test_no_declared_count_passes_the_largest_share_in_any_strategy(
    tiny_plan, tmp_path, weights, max_share, strategy
):
    plan = with_federation(tiny_plan, weights=weights, max_share=max_share, **strategy)
    store = UpdateFolder(tmp_path / "updates")
    store.clear()
    examples = {f"site-{n}": {"malignant": 10 * (n + 1)} for n in range(5)}
    examples["site-4"] = {"malignant": 10**7}
    for name in examples:
        store.keep(name, {"w": torch.tensor([float(name[-1] == "4")])})
    start = {"w": torch.tensor([0.0])}
    given = RoundUpdates(plan, Stage.FINETUNING, 1, start, examples, store)
    state, shares = build_strategy(context(plan, tmp_path)).aggregate_train(given)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares.values()) <= max_share + 1e-9
    assert state["w"].item() <= max_share + 1e-6, "what moves is what the share allows"


def test_the_largest_share_holds_in_a_group_of_norms_too(tiny_plan, tmp_path, monkeypatch):
    plan = with_federation(tiny_plan, weights="examples", norm_groups={"film": ("a", "b", "c")})
    monkeypatch.setattr(group_norms, "group_arrays", lambda plan, group: {"film/w": "w"})
    asked = []

    def combine(shares):
        asked.append(dict(shares))
        return {"w": torch.zeros(1), "film/w": torch.zeros(1)}

    shares = {"a": 0.5, "b": 0.01, "c": 0.01, "d": 0.48}
    group_norms.aggregate_groups(combine, shares, {}, plan)
    assert asked[1] == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})


def test_every_site_is_asked_with_the_weights_of_the_round_before(tiny_plan, tmp_path):
    state = {"w": torch.zeros(1)}
    asked = FedAvg(context(tiny_plan, tmp_path)).configure_train(
        Stage.FINETUNING, 1, state, list(IMAGES)
    )
    assert asked.sites == ["ada", "bea", "cleo"]
    assert asked.global_state is state
