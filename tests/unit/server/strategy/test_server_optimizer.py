"""The server's momentum and Adam: by hand, and with the same bits after any kill."""

import math

import pytest
import torch
from tests.unit.server.sites import Sites, final, run, with_federation

from mamfed_common.errors import PlanError
from mamfed_common.plan import Stage
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.strategy.server_optimizer import ServerOptimizer

FINE = Stage.FINETUNING


class Died(BaseException):
    """The process is gone."""


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 2},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 3},
    )


def weights(*values):
    return {"w": torch.tensor(values), "count": torch.tensor(7)}


def rounds_of(optimiser, *updates):
    """Take rounds of stage 2 from 0 on, each of whose sites moved ``w`` by an update."""
    state, path = weights(0.0), []
    for number, update in enumerate(updates, 1):
        mean = {"w": state["w"] + update, "count": torch.tensor(7 + number)}
        state = optimiser.step(state, mean, (FINE, number))
        path.append(state["w"].item())
    return state, path


@pytest.fixture
def made(tmp_path, plan):
    def make(**federation):
        return ServerOptimizer(with_federation(plan, **federation), tmp_path, warnings.append)

    warnings = make.warnings = []
    return make


def test_without_one_the_mean_is_taken_as_it_is(made, tmp_path):
    mean = weights(3.0)
    assert made().step(weights(1.0), mean, (FINE, 1)) is mean
    assert not list(tmp_path.glob("*.safetensors"))


def test_momentum_goes_on_where_the_rounds_before_went(made):
    """Velocities: 1; 0.5 + 2 = 2.5; 1.25 - 1 = 0.25. Half of each is taken."""
    optimiser = made(server_optimiser="momentum", server_momentum=0.5, server_learning_rate=0.5)
    _, path = rounds_of(optimiser, 1.0, 2.0, -1.0)
    assert path == pytest.approx([0.5, 1.75, 1.875])


def test_a_momentum_of_nothing_and_a_step_of_one_is_fedavg(made):
    optimiser = made(server_optimiser="momentum", server_momentum=0)
    _, path = rounds_of(optimiser, 1.0, 2.0, -1.0)
    assert path == pytest.approx([1, 3, 2])


def test_adam_agrees_with_its_formula(made):
    optimiser = made(server_optimiser="adam", server_learning_rate=0.1, server_momentum=0.9)
    updates = (0.5, 0.01, -0.3)
    first, second, position, expected = 0.0, 0.0, 0.0, []
    for t, update in enumerate(updates, 1):
        first = 0.9 * first + 0.1 * update
        second = 0.99 * second + 0.01 * update**2
        scale = math.sqrt(second / (1 - 0.99**t)) + 1e-3
        position += 0.1 * first / (1 - 0.9**t) / scale
        expected.append(position)
    assert rounds_of(optimiser, *updates)[1] == pytest.approx(expected, rel=1e-5)


def test_what_is_no_weight_comes_from_the_mean(made):
    state, _ = rounds_of(made(server_optimiser="momentum"), 1.0, 1.0)
    assert state["count"].item() == 9
    assert state["count"].dtype == torch.int64


def test_a_stage_begins_without_the_memory_of_the_one_before(made):
    optimiser = made(server_optimiser="momentum")
    state = weights(0.0)
    for number in (1, 2):
        state = optimiser.step(state, weights(5.0), (Stage.PRETRAINING, number))
    moved = optimiser.step(state, {**state, "w": state["w"] + 1}, (FINE, 1))
    assert moved["w"].item() == state["w"].item() + 1
    assert made.warnings == []


@pytest.mark.parametrize("kind", ["missing", "damaged", "of other weights", "cut"])
def test_a_memory_that_cannot_be_used_is_said_and_started_anew(made, tmp_path, kind):
    optimiser = made(server_optimiser="momentum")
    state, _ = rounds_of(optimiser, 1.0)
    (path,) = tmp_path.glob("optimiser-*")
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "cut":
        path.write_bytes(content[:-9])
    else:
        state = weights(1.5)
    moved = optimiser.step(state, {**state, "w": state["w"] + 1}, (FINE, 2))
    assert moved["w"].item() == state["w"].item() + 1, "momentum would have gone 1.9"
    (warning,) = made.warnings
    assert "the server's optimiser starts anew" in warning


def test_adam_with_the_step_of_fedavg_is_refused(tiny_plan):
    with pytest.raises(PlanError, match=r"at most 0\.1"):
        with_federation(tiny_plan, server_optimiser="adam")


OPTIMISERS = [
    {"server_optimiser": "momentum"},
    {"server_optimiser": "adam", "server_learning_rate": 0.05},
]


@pytest.mark.parametrize("federation", OPTIMISERS)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, plan, federation):
    # The updates of these sites are drawn, not trained: some are over twice the median.
    plan = with_federation(plan, clip_update_norm_ratio=10, **federation)
    whole = run(Sites(), plan, tmp_path / "whole")
    for number in range(1, 5):
        path = tmp_path / str(number)
        dies_after(plan, path, number)
        resumed = run(Sites(), plan, path, resume=True)
        assert final(resumed) == final(whole), number
        assert resumed.read_summary()["warnings"] == []
    fedavg = with_federation(plan, server_optimiser="none")
    assert final(run(Sites(), fedavg, tmp_path / "fedavg")) != final(whole)


def dies_after(plan, path, rounds):
    records = []

    def on_round(record):
        records.append(record)
        if len(records) == rounds:
            raise Died

    with pytest.raises(Died):
        run(Sites(), plan, path, on_round=on_round)


def test_a_kill_in_a_round_and_a_damaged_checkpoint_still_end_with_the_same_bits(tmp_path, plan):
    """The kill comes in the last round's validation, and the round before has a bad checkpoint."""
    plan = with_federation(plan, server_optimiser="momentum")
    whole = run(Sites(), plan, tmp_path / "whole")
    sites = Sites()

    def evaluate(message, context):
        if len(sites.trained) == 3 * 5:
            raise Died
        return Sites.evaluate(sites, message, context)

    sites.evaluate = evaluate
    with pytest.raises(Died):
        run(sites, plan, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    latest = folder.checkpoint_path("latest")
    latest.write_bytes(latest.read_bytes()[:-5] + b"12345")
    assert final(run(Sites(), plan, folder.path, resume=True)) == final(whole)


def test_a_lost_memory_is_a_warning_of_the_run(tmp_path, plan):
    plan = with_federation(plan, server_optimiser="momentum")
    dies_after(plan, tmp_path / "run", 4)
    for path in (tmp_path / "run" / "checkpoints").glob("optimiser-*"):
        path.unlink()
    summary = run(Sites(), plan, tmp_path / "run", resume=True).read_summary()
    assert summary["status"] == "finished"
    assert summary["warnings"] == [
        "optimiser-0004.safetensors is missing: the server's optimiser starts anew"
    ]


def test_only_the_last_three_rounds_are_kept(tmp_path, plan):
    plan = with_federation(plan, server_optimiser="momentum")
    folder = run(Sites(), plan, tmp_path / "run")
    kept = sorted(p.name for p in (folder.path / "checkpoints").glob("optimiser-*"))
    assert kept == [f"optimiser-{number:04}.safetensors" for number in (3, 4, 5)]
