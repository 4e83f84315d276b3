"""Arms side by side: real children, the same bits, one clear line for what goes wrong."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer

from mamfed_client.preparation.site_data import Site
from mamfed_common.errors import MamfedError, OutputError, RunError
from mamfed_common.model import malloc
from mamfed_server.run.job import Job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.cli.options import number_of_workers
from mamfed_simulations.federation import arm_process, hardware
from mamfed_simulations.federation.arm_messages import CALLABLES, ArmTask
from mamfed_simulations.federation.arm_pool import train_arms
from mamfed_simulations.federation.arm_process import LOG
from mamfed_simulations.federation.arms import (
    centralised_arm,
    describe_sites,
    federated_arm,
    local_arms,
)
from mamfed_simulations.federation.demo import demo_plan
from mamfed_simulations.federation.engine import Engine
from mamfed_simulations.federation.hardware import ArmHardware, choose_machine
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort
from mamfed_simulations.reporting.progress import Progress

ONE, TWO = ArmHardware(device="cpu", workers=1), ArmHardware(device="cpu", workers=2)
NAMES = ("federated", "local-a", "local-b", "centralised")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    for name, look in zip("ab", VENDORS.values(), strict=False):
        write_cohort(root / name, look, benign=8, malignant=12, seed=3, scale=0.08)
    return root


@pytest.fixture
def sites(data) -> tuple[Site, ...]:
    return tuple(Site(n, ((n, data / n),), data / "cache") for n in "ab")


def arms_in(folder, sites, plan):
    descriptions = describe_sites(sites, plan)
    alone, _ = local_arms(sites, descriptions, plan, folder)
    together = federated_arm(sites, plan, folder / "federated")
    return [together, *alone, centralised_arm(sites, descriptions, plan, folder)]


def long_plan(plan):
    return plan.changed(pretraining={"rounds": 5000, "learning_rate": 1e-3})


def children(parent=None):
    """Return the workers that a process has started, but those that have ended."""
    found = Path(f"/proc/{parent or os.getpid()}/task").glob("*/children")
    pids = [int(pid) for path in found for pid in path.read_text().split()]
    return [pid for pid in pids if arm_process.MODULE.encode() in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(what, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_arms_side_by_side_have_the_bits_of_arms_in_turn(tmp_path, sites, tiny_plan, capsys):
    told = {}
    for name, machine in (("turn", ONE), ("side", TWO)):
        told[name] = []
        arms = arms_in(tmp_path / name, sites, tiny_plan)
        arms[0] = replace(arms[0], job=replace(arms[0].job, on_round=told[name].append))
        with Progress() as progress:
            trained = train_arms(arms, machine, progress)
        assert [t.arm.name for t in trained] == list(NAMES)
        assert not any(t.error for t in trained)
    for one, other in zip(*(arms_in(tmp_path / n, sites, tiny_plan) for n in told), strict=True):
        for name in ("best", "final"):
            paths = [RunFolder(arm.job.folder).checkpoint_path(name) for arm in (one, other)]
            assert paths[0].read_bytes() == paths[1].read_bytes()
    rounds = [[(r.stage, r.server_round, r.mean_validation_dice) for r in told[n]] for n in told]
    assert rounds[0] == rounds[1]
    assert len(rounds[0]) == 3
    assert not children()
    shown = capsys.readouterr().err
    assert all(shown.count(name) for name in NAMES)


def test_every_setting_of_a_job_reaches_the_child(tmp_path, sites, tiny_plan):
    arm = centralised_arm(sites, describe_sites(sites, tiny_plan), tiny_plan, tmp_path)
    odd = {"min_sites": 2, "resume": True, "run": "r", "signature": "s", "flower_run": 3}
    job = replace(arm.job, on_round=lambda record: None, **odd)
    order = ArmTask(arm=replace(arm, job=job), machine=TWO)
    read = ArmTask.model_validate_json(order.to_json())
    assert read.arm.sites == arm.sites
    assert read.machine == TWO
    for name in {breast_mask.name for breast_mask in fields(Job)} - CALLABLES:
        assert getattr(read.arm.job, name) == getattr(job, name), name


def test_an_arms_error_is_the_one_that_it_has_in_this_process(tmp_path, sites, tiny_plan):
    arms = arms_in(tmp_path / "run", sites, tiny_plan)[1:]
    broken = arms[0].job.folder
    broken.mkdir(parents=True)
    (broken / "thesis.tex").write_text("x")
    found = []
    with Progress() as progress:
        for machine in (ONE, TWO):
            with pytest.raises(
                OutputError, match="local-a: exists and is not a run fold"
            ) as raised:
                train_arms(arms, machine, progress)
            found.append(str(raised.value))
            assert not children()
        assert found[0] == found[1]
        trained = train_arms(arms, TWO, progress, keep_going=True)
    assert [type(t.error) for t in trained] == [OutputError, type(None), type(None)]
    assert RunFolder(arms[-1].job.folder).is_finished()
    assert not (broken / LOG).exists()


def test_what_a_failed_arms_process_wrote_is_shown_and_kept(tmp_path, sites, tiny_plan, capsys):
    endless = {"losses": {"benign": 1e38}, "finetuning": {"rounds": 1, "learning_rate": 1}}
    _, _, arm, other = arms_in(tmp_path / "run", sites, tiny_plan.changed(**endless))
    with Progress() as progress:
        trained = train_arms([arm, other], TWO, progress, keep_going=True)
    assert {type(t.error) for t in trained} == {RunError}
    assert str(trained[0].error).startswith("finetuning round 1: 0 of 1 updates accepted")
    log = arm.job.folder / LOG
    assert "could not answer a train" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "could not answer a train" in capsys.readouterr().err


SCRIPT = """
import sys
from mamfed_common.errors import MamfedError
from mamfed_simulations.reporting.progress import Progress
from mamfed_simulations.federation.arm_messages import ArmTask
from mamfed_simulations.federation.arm_pool import train_arms
orders = [ArmTask.model_validate_json(line) for line in sys.stdin]
with Progress() as progress:
    try:
        train_arms([order.arm for order in orders], orders[0].machine, progress)
    except MamfedError as error:
        print(type(error).__name__, error)
"""


def test_a_child_that_is_killed_is_one_line(tmp_path, sites, tiny_plan):
    process, pids = start(arms_in(tmp_path / "run", sites, long_plan(tiny_plan)))
    os.kill(pids[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=300)
    assert out.startswith("RunError ")
    assert out.endswith(
        "its process was killed, probably by the system because memory ran out; "
        "use fewer --workers\n"
    )
    assert out.count("\n") == 1
    assert not any(command_of(pid) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_the_command(tmp_path, sites, tiny_plan, how):
    process, pids = start(arms_in(tmp_path / "run", sites, long_plan(tiny_plan)))
    process.send_signal(how)
    process.communicate(timeout=300)
    assert process.returncode
    wait_for(lambda: not any(map(command_of, pids)), 10)


def trained(arms):
    """Count the arms that have ended a round."""
    return sum((arm.job.folder / "rounds.jsonl").exists() for arm in arms)


def start(arms):
    """Train arms in a process of its own; return it and its children once they train."""
    orders = [ArmTask(arm=arm, machine=TWO).to_json() for arm in arms]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write("\n".join(orders))
    process.stdin.close()
    process.stdin = None
    pids = wait_for(lambda: len(found := children(process.pid)) == 2 and found)
    wait_for(lambda: trained(arms) == 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process, pids


@pytest.mark.parametrize(
    ("size", "arms", "asked", "expected"),
    [
        (128, 5, {}, (1, 4)),
        (128, 3, {}, (1, 3)),
        (128, 5, {"workers": 2}, (1, 2)),
        (128, 5, {"workers": 1}, (1, 1)),
        (128, 5, {"workers": 9}, (1, 5)),
        (128, 5, {"threads": 2}, (2, 2)),
        (128, 1, {}, (4, 1)),
        (1536, 5, {}, (4, 1)),
        (1536, 5, {"threads": 1}, (1, 2)),
        (128, 5, {"engine": Engine.RAY}, (4, 1)),
    ],
)
def test_auto_takes_what_cores_and_memory_allow(monkeypatch, size, arms, asked, expected):
    """Four cores and 16 GiB; the threads, which decide the bits, do not depend on the workers."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(hardware, "available_bytes", lambda: 16 << 30)
    machine = choose_machine(demo_plan(size=size), arms, device="cpu", **asked)
    assert (machine.threads, machine.workers) == expected


def test_arms_on_ray_cannot_be_side_by_side():
    with pytest.raises(MamfedError, match=r"--workers 2: .*--engine process"):
        choose_machine(demo_plan(), 5, engine=Engine.RAY, workers=2)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "1025"])
def test_a_number_of_workers_that_is_none_is_a_usage_error(text):
    with pytest.raises(typer.BadParameter, match="expected auto or 1 to 1024"):
        number_of_workers(text)


def test_a_number_of_workers_is_read():
    assert (number_of_workers("auto"), number_of_workers("3")) == (None, 3)


def test_memory_is_what_is_available_and_in_a_container_what_its_limit_leaves(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(malloc, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(malloc, "_CGROUP", tmp_path)
    assert malloc.available_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    3000 kB\n")
    assert malloc.available_bytes() == 3000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert malloc.available_bytes() == 3000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert malloc.available_bytes() == 4000
