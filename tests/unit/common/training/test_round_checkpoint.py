"""A round that is cut short at any step ends with the bits of one that was not."""

import logging
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.conftest import blob_sample

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage, StagePlan
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.round_checkpoint import RoundCheckpointer, RoundPosition, TrainingResult
from mamfed_common.training.stages import train as train_stage
from nursery import BORN_CODE

CPU = torch.device("cpu")
TURN = RoundContext("site", 1)
SAMPLES = [blob_sample(seed) for seed in range(3)]
STEPS = 4
"""Of a round: three images, two a step, two epochs."""


class Killed(Exception):
    pass


pretrain, finetune = (partial(train_stage, stage) for stage in Stage)


@pytest.fixture
def plan(tiny_plan):
    stage = StagePlan(rounds=2, local_epochs=2, batch_size=2, learning_rate=1e-2)
    return tiny_plan.changed(pretraining=stage.model_dump(), finetuning=stage.model_dump())


def keeper(folder, what="round 1", every_seconds=0.0):
    return RoundCheckpointer(folder, what, every_seconds)


def train(stage, plan, checkpointer=None, stop_after=None, samples=SAMPLES):
    """Train one round; ``stop_after`` steps it is killed. Returns result and steps taken."""
    steps = []

    def on_step():
        steps.append(1)
        if len(steps) == stop_after:
            raise Killed

    start = state_of(build_network(plan.network, 0))
    result = stage(
        start, samples, plan, TURN, device=CPU, on_step=on_step, checkpointer=checkpointer
    )
    return result, len(steps)


def same_bits(one, other):
    return (
        state_sha256(one.state) == state_sha256(other.state)
        and one.loss == other.loss
        and one.num_examples == other.num_examples
    )


def only(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("stage", [pretrain, finetune])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_round_killed_at_any_step_ends_with_the_same_bits(tmp_path, plan, stage, step):
    whole, _ = train(stage, plan)
    with pytest.raises(Killed):
        train(stage, plan, keeper(tmp_path), stop_after=step)
    resumed, taken = train(stage, plan, keeper(tmp_path))
    assert taken == STEPS - step
    assert same_bits(resumed, whole)


@pytest.mark.parametrize("stage", [pretrain, finetune])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_round_in_steps_killed_at_any_step_ends_with_the_same_bits(tmp_path, plan, stage, step):
    """Five steps of two images each: nearly two laps over three images."""
    steps = {"rounds": 2, "local_steps": 5, "batch_size": 2, "learning_rate": 1e-2}
    counted = plan.changed(pretraining=steps, finetuning=steps)
    whole, taken = train(stage, counted)
    assert taken == 5
    with pytest.raises(Killed):
        train(stage, counted, keeper(tmp_path), stop_after=step)
    resumed, taken = train(stage, counted, keeper(tmp_path))
    assert taken == 5 - step
    assert same_bits(resumed, whole)


def test_a_killed_round_of_fedprox_is_still_held_to_where_it_started(tmp_path, plan):
    held = plan.changed(federation={"proximal_mu": 5.0})
    whole, _ = train(finetune, held)
    with pytest.raises(Killed):
        train(finetune, held, keeper(tmp_path), stop_after=3)
    assert same_bits(train(finetune, held, keeper(tmp_path))[0], whole)
    assert not same_bits(train(finetune, plan)[0], whole)


def test_a_round_killed_after_every_step_ends_with_the_same_bits(tmp_path, plan):
    whole, _ = train(finetune, plan)
    for _ in range(STEPS):
        with pytest.raises(Killed):
            train(finetune, plan, keeper(tmp_path), stop_after=1)
    assert same_bits(train(finetune, plan, keeper(tmp_path))[0], whole)


def test_a_round_that_is_over_is_not_trained_again(tmp_path, plan):
    first, _ = train(finetune, plan, keeper(tmp_path))
    again, taken = train(finetune, plan, keeper(tmp_path))
    assert taken == 0
    assert same_bits(again, first)
    assert same_bits(keeper(tmp_path).result(), first)


def test_keeping_a_round_changes_none_of_its_bits(tmp_path, plan):
    assert same_bits(train(pretrain, plan, keeper(tmp_path))[0], train(pretrain, plan)[0])


def test_nothing_is_written_before_it_is_time(tmp_path, plan):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path, every_seconds=3600), stop_after=3)
    assert not list(tmp_path.iterdir())


def test_there_is_no_result_before_the_end(tmp_path, plan):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=STEPS)
    assert keeper(tmp_path).result() is None


def test_files_are_the_owners_only_and_the_result_replaces_the_way_to_it(tmp_path, plan):
    folder = tmp_path / "state"
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(folder), stop_after=1)
    assert only(folder).name.endswith(".progress.safetensors")
    assert only(folder).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    train(pretrain, plan, keeper(folder))
    assert only(folder).name.endswith(".result.safetensors")
    assert only(folder).stat().st_mode & 0o777 == 0o600


def test_another_round_starts_anew_and_removes_what_is_left_of_the_last(tmp_path, plan):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=2)
    (tmp_path / f".{only(tmp_path).name}.abc.draft").write_bytes(b"half a file")
    (tmp_path / "notes.txt").write_text("not ours")
    result, taken = train(pretrain, plan, keeper(tmp_path, "round 2"))
    assert taken == STEPS
    assert same_bits(result, train(pretrain, plan)[0])
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "notes.txt").exists()


def test_a_draft_left_by_a_kill_in_the_same_round_is_removed(tmp_path, plan):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=2)
    (tmp_path / f".{only(tmp_path).name}.abc.draft").write_bytes(b"half a file")
    _, taken = train(pretrain, plan, keeper(tmp_path))
    assert taken == STEPS - 2
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("where", [0.0, 0.02, 0.5, 0.99])
def test_a_damaged_file_is_said_and_the_round_starts_anew(tmp_path, plan, caplog, where):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=3)
    path = only(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    result, taken = train(pretrain, plan, keeper(tmp_path))
    assert taken == STEPS
    assert "damaged" in caplog.text
    assert same_bits(result, train(pretrain, plan)[0])


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_a_file_that_was_cut_is_said_and_the_round_starts_anew(tmp_path, plan, caplog, length):
    train(pretrain, plan, keeper(tmp_path))
    path = only(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert keeper(tmp_path).result() is None
    assert "damaged" in caplog.text
    assert train(pretrain, plan, keeper(tmp_path))[1] == STEPS


def test_every_fact_in_the_header_is_under_the_checksum(tmp_path, plan, caplog):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=3)
    path = only(tmp_path)
    changed = path.read_bytes().replace(rb"\"step\":1", rb"\"step\":2")
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    assert train(pretrain, plan, keeper(tmp_path))[1] == STEPS
    assert "damaged" in caplog.text


def test_a_file_renamed_to_another_round_is_said_and_not_used(tmp_path, plan, caplog):
    train(pretrain, plan, keeper(tmp_path))
    theirs = only(tmp_path).read_bytes()
    train(pretrain, plan, keeper(tmp_path, "round 2"))
    only(tmp_path).write_bytes(theirs)
    assert keeper(tmp_path, "round 2").result() is None
    assert "another round" in caplog.text


def test_another_number_of_images_starts_the_round_anew(tmp_path, plan, caplog):
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path), stop_after=2)
    more = [*SAMPLES, blob_sample(9)]
    result, _ = train(pretrain, plan, keeper(tmp_path), samples=more)
    assert "number of images" in caplog.text
    assert same_bits(result, train(pretrain, plan, samples=more)[0])


def test_a_disk_that_takes_no_more_costs_a_warning_and_not_the_round(tmp_path, plan, caplog):
    folder = tmp_path / "state"
    checkpointer = keeper(folder)
    folder.rmdir()
    result, _ = train(pretrain, plan, checkpointer)
    assert same_bits(result, train(pretrain, plan)[0])
    assert "No such file" in caplog.text


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.1 + 0.2, 1e-310, -0.0])
def test_a_loss_is_kept_to_the_last_bit(tmp_path, plan, loss):
    network = build_network(plan.network, 0)
    optimizer = torch.optim.AdamW(network.parameters())
    checkpointer = keeper(tmp_path)
    checkpointer.step(network, optimizer, RoundPosition(1, 2, loss), {"benign": 3})
    assert checkpointer.resume(network, optimizer, {"benign": 3}).loss_sum.hex() == loss.hex()
    checkpointer.finish(TrainingResult(state_of(network), {"benign": 3}, loss))
    assert checkpointer.result().loss.hex() == loss.hex()


def test_no_line_of_the_log_names_what_is_kept(tmp_path, plan, caplog):
    """``what`` holds the site's name; a path could hold more."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Killed):
        train(pretrain, plan, keeper(tmp_path, "secret"), stop_after=2)
    only(tmp_path).write_bytes(b"")
    train(pretrain, plan, keeper(tmp_path, "secret"))
    assert caplog.records
    assert "secret" not in caplog.text
    assert str(tmp_path) not in caplog.text


CHILD = f"""{BORN_CODE}
import itertools, signal, sys
from pathlib import Path
import torch
from tests.unit.common.training.test_round_checkpoint import CPU, SAMPLES, TURN
from mamfed_common.training.round_checkpoint import RoundCheckpointer
from mamfed_common.plan import read_plan
from mamfed_common.model.state_dict import state_of
from mamfed_common.model.malignancy_net import build_network
from tests.unit.common.training.test_round_checkpoint import finetune

torch.set_num_threads(1)
plan = read_plan(Path(sys.argv[1]))
start = state_of(build_network(plan.network, 0))
keep = RoundCheckpointer(Path(sys.argv[2]), "round 1", 0.0)
steps = itertools.count(1)

def on_step():
    print(flush=True)
    if next(steps) == int(sys.argv[3]):
        signal.pause()

finetune(start, SAMPLES, plan, TURN, device=CPU, checkpointer=keep, on_step=on_step)
"""


def start_and_kill(plan_path, folder, steps):
    """Train in a process of its own; SIGKILL it so many steps later, or up to ten more."""
    command = [sys.executable, "-c", CHILD, str(plan_path), str(folder), str(steps + 10)]
    root = Path(__file__).parents[4]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=dict(os.environ)) as child:
        for _ in range(steps):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    return child.returncode


def test_a_round_whose_process_is_killed_ends_with_the_same_bits(tmp_path, plan):
    plan = plan.changed(finetuning={**plan.finetuning.model_dump(), "local_epochs": 25})
    plan_path, folder = tmp_path / "plan.yaml", tmp_path / "state"
    plan_path.write_text(plan.to_yaml())
    codes = [start_and_kill(plan_path, folder, steps) for steps in (1, 17)]
    assert codes == [-signal.SIGKILL] * 2
    resumed, taken = train(finetune, plan, keeper(folder))
    assert 50 - (1 + 10) - (17 + 10) - 1 <= taken <= 50 - 1 - 17
    assert same_bits(resumed, train(finetune, plan)[0])
