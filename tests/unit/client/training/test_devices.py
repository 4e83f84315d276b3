"""Rounds on two devices: real partners, gloo between them, samples on disk as a site has them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.conftest import blob_sample

from mamfed_client.imaging.geometry import Transform
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.sample_store import SampleStore, digest
from mamfed_client.site.hardware import Hardware
from mamfed_client.training.devices import StoredImage, WorkerTask, train_on
from mamfed_common.errors import RunError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import TRAINED_ON, Stage, StagePlan
from mamfed_common.runtime.child_processes import how_it_ended
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.data_parallel import ProcessRank
from mamfed_common.training.optimizer_state import OptimizerStateStore
from mamfed_common.training.round_checkpoint import RoundCheckpointer

TURN = RoundContext("site", 1)
ONE, TWO = (Hardware("cpu", count, threads=1) for count in (1, 2))
STEPS = 6
"""Of a round: five images, two a step, two epochs. In the last step of each, the partner has none;
and a step has one benign image, which the partner never has."""
WHERE = Transform(rows=32, columns=32, top=0, bottom=32, left=0, right=32, flipped=False, size=32)
WAIT_SECONDS = 30


class OnDisk(StoredSamples):
    """Samples in a site's cache, which this process has read already."""

    def __init__(self, folder, samples, key=None):
        self.samples = samples
        store = SampleStore(folder, key)
        names = [digest(sample.name, "", None, 32, 0) for sample in samples]
        self.entries = [
            (sample.name, store.add(name, sample, WHERE))
            for name, sample in zip(names, samples, strict=True)
        ]

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, index):
        return self.samples[index]

    def entry(self, index):
        return self.entries[index]


class Killed(Exception):
    pass


@pytest.fixture
def plan(tiny_plan):
    stage = StagePlan(rounds=2, local_epochs=2, batch_size=2, learning_rate=1e-2).model_dump()
    return tiny_plan.changed(pretraining=stage, finetuning=stage)


@pytest.fixture
def round_of(plan, tmp_path):
    def train(hardware, stage, *, changed=None, key=None, images=5, **more):
        folder = tmp_path / f"samples {bool(key)}"
        samples = OnDisk(folder, [blob_sample(seed) for seed in range(images)], key)
        benign = OnDisk(folder, [blob_sample(s, malignant=False) for s in range(50, 53)], key)
        chosen = plan.changed(**(changed or {}))
        start = state_of(build_network(plan.network, 0))
        return train_on(hardware, stage, start, samples, chosen, TURN, benign=benign, **more)

    return train


def furthest(one, other):
    return max(float((one.state[name] - other.state[name]).abs().max()) for name in one.state)


def same_bits(one, other):
    return state_sha256(one.state) == state_sha256(other.state) and one.loss == other.loss


def partners(parent=None):
    """Return the processes that a process has started, but those that have ended."""
    found = Path(f"/proc/{parent or os.getpid()}/task").glob("*/children")
    pids = [int(pid) for path in found for pid in path.read_text().split()]
    return [pid for pid in pids if b"mamfed_client.training.device_worker" in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("stage", "changed"),
    [(Stage.PRETRAINING, {}), (Stage.FINETUNING, {"federation": {"proximal_mu": 5.0}})],
    ids=["pretraining", "finetuning, held"],
)
def test_two_devices_train_what_one_does_with_the_whole_batch(round_of, stage, changed):
    one, two = (round_of(hardware, stage, changed=changed) for hardware in (ONE, TWO))
    assert two.num_examples == one.num_examples
    assert two.num_examples[TRAINED_ON[stage]] == 5
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    moved = furthest(one, round_of(ONE, stage, changed=changed, images=4))
    assert furthest(one, two) < 1e-5 < 0.01 * moved
    assert not partners()


@pytest.mark.parametrize("images", [0, 3])
def test_benign_images_with_an_empty_target_are_weighed_alike(round_of, plan, images):
    """In steps, with and without malignant images; three benign ones a step, two on the one."""
    stage = {"rounds": 2, "local_steps": 3, "batch_size": 6, "learning_rate": 1e-2}
    changed = {
        "finetuning": {**stage, "benign_only_sites": True},
        "losses": {"benign": 3.0, "empty": 2.0},
    }
    one, two = (
        round_of(hardware, Stage.FINETUNING, changed=changed, images=images)
        for hardware in (ONE, TWO)
    )
    assert furthest(one, two) < 1e-5
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    assert two.num_examples == one.num_examples


def test_two_devices_go_on_with_the_moments_that_the_leader_kept(round_of, plan, tmp_path):
    stage = {**plan.finetuning.model_dump(), "optimizer_state": "kept"}
    changed = {"finetuning": stage}

    def second_round(hardware, after):
        """Train the second round from the first one's start, with its moments or afresh."""
        folder = tmp_path / f"moments {len(hardware)} {hardware.devices} {after}"
        kept = plan.changed(**changed)
        for server_round in (1, 2) if after else (2,):
            moments = OptimizerStateStore(folder, kept, "", Stage.FINETUNING, server_round)
            result = round_of(hardware, Stage.FINETUNING, changed=changed, optimizer_state=moments)
        return result

    one, two = (second_round(hardware, after=True) for hardware in (ONE, TWO))
    assert furthest(one, two) < 1e-5
    assert furthest(one, second_round(ONE, after=False)) > 1e-4


def test_a_batch_of_more_images_and_benign_ones_is_weighed_alike(round_of, plan):
    """Four and two of seven and three images on the one, three and one on the other."""
    stage = {**plan.finetuning.model_dump(), "batch_size": 7}
    changed = {"finetuning": stage, "losses": {"benign": 3.0}}
    one, two = (
        round_of(hardware, Stage.FINETUNING, changed=changed, images=7) for hardware in (ONE, TWO)
    )
    assert furthest(one, two) < 1e-5
    assert two.loss == pytest.approx(one.loss, rel=1e-5)


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    return TWO._replace(devices=3)


def test_three_devices_and_two_images_a_step(round_of, three):
    one, most = (round_of(hardware, Stage.FINETUNING) for hardware in (ONE, three))
    assert furthest(one, most) < 1e-5


def test_two_devices_give_the_same_bits_again_encrypted_or_with_less_memory(round_of):
    first = round_of(TWO, Stage.FINETUNING)
    lighter = TWO._replace(activation_checkpointing=True)
    assert same_bits(round_of(lighter, Stage.FINETUNING, key=b"k" * 32), first)


def test_a_round_cut_short_goes_on_with_the_same_bits(round_of, tmp_path):
    """Stage 1, where the optimizer has nothing of the head."""
    stage = Stage.PRETRAINING

    def checkpointer_of():
        return RoundCheckpointer(tmp_path / "state", "round 1", 0.0)

    steps = []

    def on_step():
        steps.append(1)
        if len(steps) == 4:
            raise Killed

    whole = round_of(TWO, stage)
    with pytest.raises(Killed):
        round_of(TWO, stage, checkpointer=checkpointer_of(), on_step=on_step)
    assert not partners()
    resumed = round_of(TWO, stage, checkpointer=checkpointer_of(), on_step=on_step)
    assert len(steps) == STEPS
    assert same_bits(resumed, whole)
    assert same_bits(round_of(TWO, stage, checkpointer=checkpointer_of(), on_step=on_step), whole)
    assert len(steps) == STEPS, "a round that is over starts no partner"


def test_a_round_begun_on_two_devices_goes_on_with_one(round_of, tmp_path):
    def stop():
        raise Killed

    def checkpointer_of():
        return RoundCheckpointer(tmp_path / "state", "round 1", 0.0)

    with pytest.raises(Killed):
        round_of(TWO, Stage.FINETUNING, checkpointer=checkpointer_of(), on_step=stop)
    resumed = round_of(ONE, Stage.FINETUNING, checkpointer=checkpointer_of())
    assert furthest(resumed, round_of(ONE, Stage.FINETUNING)) < 1e-5


def test_a_partner_that_dies_ends_the_round_in_one_line_and_all_others(round_of, three):
    def kill_one():
        os.kill(min(partners()), signal.SIGKILL)

    with pytest.raises(RunError) as caught:
        round_of(three, Stage.FINETUNING, on_step=kill_one)
    assert str(caught.value) == f"cpu: its process {how_it_ended(-signal.SIGKILL)}"
    assert not partners()
    assert round_of(TWO, Stage.FINETUNING), "the next round has new ones"


def test_a_partner_that_cannot_read_its_samples_says_why(round_of, tmp_path, capfd):
    def remove():
        for path in tmp_path.glob("samples*/??/*"):
            path.unlink(missing_ok=True)

    with pytest.raises(RunError, match=r"its process ended with code 4"):
        round_of(TWO, Stage.PRETRAINING, images=50, on_step=remove)
    assert "stored sample is missing" in capfd.readouterr().err
    assert not partners()


def listening(pid):
    """Return the addresses on which a process listens, as /proc has them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link) if link.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_nothing_listens_on_the_network(round_of, monkeypatch):
    """Nor where the environment, or else the host's name, leads gloo to another interface."""
    interfaces = [name for _, name in socket.if_nameindex() if name.startswith(("eth", "en"))]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", (interfaces or ["lo"])[0])
    seen = []

    def look():
        seen.extend(listening(pid) for pid in (os.getpid(), *partners()))

    round_of(TWO, Stage.FINETUNING, on_step=look)
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert set().union(*seen)
    assert set().union(*seen) <= loopback


LEADER = """
import signal, sys
from pathlib import Path
from mamfed_common.plan import read_plan
from tests.unit.client.training.test_devices import *

from mamfed_common.training import worker_processes

def joins(place):
    print(*partners(), flush=True)
    signal.pause()

worker_processes.joined_group = joins  # the worker then waits in a call that no crash ends
plan = read_plan(Path(sys.argv[1]))
samples = OnDisk(Path(sys.argv[2]), [blob_sample(seed) for seed in range(5)])
start = state_of(build_network(plan.network, 0))
train_on(TWO, Stage.FINETUNING, start, samples, plan, TURN, benign=samples)
"""


def test_no_partner_outlives_its_leader(tmp_path, plan):
    plan_path = tmp_path / "plan.yaml"
    plan_path.write_text(plan.to_yaml())
    command = [sys.executable, "-c", LEADER, str(plan_path), str(tmp_path / "samples")]
    root = Path(__file__).parents[4]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as leader:
        (partner,) = map(int, leader.stdout.readline().split())
        assert b"mamfed_client.training.device_worker" in command_of(partner)
        leader.kill()
    deadline = time.monotonic() + WAIT_SECONDS
    while command_of(partner):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_order_comes_through_as_it_was_given(plan):
    image = StoredImage(name="é.dcm", path=Path("/x"), key="00ff")
    order = WorkerTask(
        place=ProcessRank(rank=1, world_size=2, device="cuda:1", folder=Path("/y")),
        stage=Stage.FINETUNING,
        plan=plan,
        round_context=TURN,
        samples=(image,),
        benign=(),
        threads=3,
        activation_checkpointing=True,
    )
    read = WorkerTask.model_validate_json(order.model_dump_json())
    assert read == order
    assert read.plan.sha256() == plan.sha256()
    assert isinstance(read.round_context, RoundContext)
    assert "00ff" not in repr(order)


def test_one_device_starts_no_process(round_of):
    round_of(ONE, Stage.FINETUNING, on_step=lambda: pytest.fail("found") if partners() else None)
    assert not torch.distributed.is_initialized()
