"""Moments that are kept make rounds one long training, and never cost one."""

import stat
from pathlib import Path

import pytest
import torch
from tests.conftest import blob_sample

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer
from mamfed_common.training.stages import train

CPU = torch.device("cpu")
SAMPLES = [blob_sample(seed) for seed in range(3)]
BENIGN = [blob_sample(seed, malignant=False) for seed in range(20, 22)]


class Killed(Exception):
    pass


def in_rounds(plan, rounds, **more):
    """Return the plan with four steps a stage, in so many rounds."""
    stage = {"rounds": rounds, "local_steps": 4 // rounds, "learning_rate": 1e-2, **more}
    return plan.changed(pretraining=stage, finetuning=stage)


@pytest.fixture
def plan(tiny_plan):
    return in_rounds(tiny_plan, 4, optimizer_state="kept")


def keeper(folder, plan, server_round, stage=Stage.FINETUNING, run="run"):
    return OptimizerStateStore(folder, plan, run, stage, server_round)


def one_round(plan, state, server_round, folder=None, stage=Stage.FINETUNING, **more):
    moments = keeper(folder, plan, server_round, stage) if folder else None
    round_context = RoundContext("site", server_round)
    return train(
        stage,
        state,
        SAMPLES,
        plan,
        round_context,
        device=CPU,
        benign=BENIGN,
        optimizer_state=moments,
        **more,
    )


def start_of(plan):
    return state_of(build_network(plan.network, 0))


def all_rounds(plan, folder=None, stage=Stage.FINETUNING, state=None):
    """Train a stage at one site alone; return the weights after each round."""
    states = [state or start_of(plan)]
    for server_round in range(1, plan.stage(stage).rounds + 1):
        states.append(one_round(plan, states[-1], server_round, folder, stage).state)
    return states[1:]


def bits(states):
    return [state_sha256(state) for state in states]


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", Stage)
def test_a_site_alone_trains_in_short_rounds_what_it_trains_in_one(
    tmp_path, tiny_plan, plan, stage
):
    (whole,) = all_rounds(in_rounds(tiny_plan, 1), stage=stage)
    kept = all_rounds(plan, tmp_path, stage)
    fresh = all_rounds(in_rounds(tiny_plan, 4), stage=stage)
    assert bits(kept)[-1] == state_sha256(whole)
    assert bits(fresh)[0] == bits(kept)[0]
    assert bits(fresh)[1] != bits(kept)[1]


def test_a_round_that_is_asked_again_begins_as_it_did_before(tmp_path, plan):
    states = [start_of(plan), *all_rounds(plan, tmp_path)]
    for server_round in (3, 4, 4, 3, 4):
        again = one_round(plan, states[server_round - 1], server_round, tmp_path).state
        assert state_sha256(again) == state_sha256(states[server_round])


@pytest.mark.parametrize("step", [1, 2])
def test_a_killed_round_ends_with_the_same_bits(tmp_path, tiny_plan, step):
    plan = in_rounds(tiny_plan, 2, optimizer_state="kept")
    first, second = all_rounds(plan, tmp_path / "whole")
    one_round(plan, start_of(plan), 1, tmp_path / "moments")
    taken = []

    def on_step():
        taken.append(1)
        if len(taken) == step:
            raise Killed

    def second_round(on_step=None):
        checkpointer = RoundCheckpointer(tmp_path / "state", "round 2", 0.0)
        folder = tmp_path / "moments"
        return one_round(plan, first, 2, folder, on_step=on_step, checkpointer=checkpointer).state

    with pytest.raises(Killed):
        second_round(on_step)
    assert state_sha256(second_round()) == state_sha256(second)


def test_a_kill_between_moments_and_result_costs_neither(tmp_path, plan, monkeypatch):
    """The next round begins with moments of this one, whatever the kill came between."""
    first, second, *_ = all_rounds(plan, tmp_path / "whole")
    folder = tmp_path / "moments"

    def die(*_):
        raise Killed

    checkpointer = RoundCheckpointer(tmp_path / "state", "round 1", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(RoundCheckpointer, "finish", die)
        with pytest.raises(Killed):
            one_round(plan, start_of(plan), 1, folder, checkpointer=checkpointer)
    again = one_round(plan, start_of(plan), 1, folder, checkpointer=checkpointer)
    assert state_sha256(again.state) == state_sha256(first)
    assert state_sha256(one_round(plan, first, 2, folder).state) == state_sha256(second)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(path.read_bytes()[:-5] + b"12345"),
        lambda path: path.write_bytes(path.with_name("0-0001.safetensors").read_bytes()),
    ],
    ids=["missing", "cut", "changed", "of another round"],
)
def test_moments_that_cannot_be_used_are_said_and_cost_a_fresh_start(tmp_path, plan, caplog, spoil):
    one_round(plan, start_of(plan), 1, tmp_path, Stage.PRETRAINING)
    first = one_round(plan, start_of(plan), 1, tmp_path).state
    (path,) = tmp_path.rglob("1-0001.safetensors")
    spoil(path)
    caplog.clear()
    found = one_round(plan, first, 2, tmp_path).state
    assert "AdamW starts fresh" in caplog.text
    assert str(tmp_path) not in caplog.text
    assert state_sha256(found) == state_sha256(one_round(plan, first, 2).state)


def test_a_stage_begins_afresh_without_a_word(tmp_path, plan, caplog):
    last = all_rounds(plan, tmp_path, Stage.PRETRAINING)[-1]
    found = one_round(plan, last, 1, tmp_path).state
    assert not caplog.text
    assert state_sha256(found) == state_sha256(one_round(plan, last, 1).state)


def test_a_site_that_missed_rounds_goes_on_with_its_last(tmp_path, plan):
    first = one_round(plan, start_of(plan), 1, tmp_path / "a").state
    late = one_round(plan, first, 3, tmp_path / "a").state
    assert state_sha256(late) != state_sha256(one_round(plan, first, 3).state)


def test_another_plan_or_run_has_moments_of_its_own(tmp_path, plan):
    first = one_round(plan, start_of(plan), 1, tmp_path).state
    fresh = state_sha256(one_round(plan, first, 2).state)
    for moments in (
        keeper(tmp_path, plan, 2, run="another"),
        keeper(tmp_path, plan.changed(seed=5), 2),
    ):
        round_context = RoundContext("site", 2)
        found = train(
            Stage.FINETUNING,
            first,
            SAMPLES,
            plan,
            round_context,
            device=CPU,
            benign=BENIGN,
            optimizer_state=moments,
        )
        assert state_sha256(found.state) == fresh


def test_three_rounds_and_two_runs_are_kept_for_their_owner_alone(tmp_path, plan):
    folder = tmp_path / "state" / "optimizer"
    for run in ("first", "second", "third"):
        for stage in Stage:
            state = start_of(plan)
            for server_round in (1, 2, 3, 4):
                moments = keeper(folder, plan, server_round, stage, run)
                round_context = RoundContext("site", server_round)
                train(
                    stage, state, SAMPLES, plan, round_context, device=CPU, optimizer_state=moments
                )
    runs = list(folder.iterdir())
    assert len(runs) == 2
    for kept in runs:
        assert [p.name for p in files(kept)] == [f"1-000{n}.safetensors" for n in (2, 3, 4)]
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600)


def test_a_round_before_removes_those_after_it(tmp_path, plan):
    states = [start_of(plan), *all_rounds(plan, tmp_path)]
    one_round(plan, states[2], 3, tmp_path)
    assert [p.name for p in files(tmp_path)] == ["1-0002.safetensors", "1-0003.safetensors"]


def test_a_disk_that_takes_no_more_costs_a_warning_and_not_the_round(tmp_path, plan, caplog):
    moments = keeper(tmp_path, plan, 1)
    (run,) = tmp_path.iterdir()
    run.rmdir()
    round_context = RoundContext("site", 1)
    found = train(
        Stage.FINETUNING,
        start_of(plan),
        SAMPLES,
        plan,
        round_context,
        device=CPU,
        benign=BENIGN,
        optimizer_state=moments,
    )
    assert "cannot save" in caplog.text
    assert state_sha256(found.state) == state_sha256(one_round(plan, start_of(plan), 1).state)
