"""Arms side by side, each in a process of its own, and the choice of how many.

At the sizes of a demo two processes of one thread do the work of five of two threads on a busy
machine (``docs/decisions/0031-arms-side-by-side.md``), and their bits do not depend on how many
cores or how many processes there are. A child is ``python -m
mamfed_simulations.federation.arm_worker``: it reads its order from stdin, writes a :class:`Report`
a line to stdout, and ends where this process does.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import torch

from mamfed_common import errors
from mamfed_common.config import Config
from mamfed_common.errors import MamfedError, RunError
from mamfed_common.model.malloc import available_bytes
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.runtime.child_processes import how_it_ended, module_command, start_process
from mamfed_common.runtime.places import temporary_folder
from mamfed_common.runtime.process_supervisor import LIFELINE
from mamfed_common.training.device import choose_device
from mamfed_server.run_folder.folder import RoundRecord, RunFolder
from mamfed_simulations.federation.arms import Arm, describe_sites
from mamfed_simulations.federation.engine import Engine
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.reporting.progress import Progress

MODULE = "mamfed_simulations.federation.arm_worker"
LOG = "worker.log"
"""In an arm's run folder: what its process wrote to stderr, if anything."""
LOG_BYTES = 2**20
SHOWN_LINES = 20
CALLABLES = frozenset({"names", "stopping", "on_round", "on_event"})
"""What of a job cannot be sent to another process."""

SMALL_SIZE = 512
"""Largest side of images at which arms side by side take one thread each, see 0031."""
BASE_BYTES = 800 * 2**20
BYTES_PER_PIXEL = 1100
"""Memory of a process: its libraries, and what a training step keeps for each pixel of a batch."""


@dataclass(frozen=True)
class ArmHardware:
    """What arms are trained with.

    Attributes:
        engine: Where sites run.
        device: Where sites train.
        threads: CPU threads of each site; equal numbers give equal bits.
        workers: Arms side by side, each in a process; with 1 they take turns in this one. No bit
            depends on it.
        activation_checkpointing: Whether sites train in less memory, at the cost of time.
    """

    engine: Engine = Engine.PROCESS
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    activation_checkpointing: bool = False


class ArmTask(Config):
    """What a child is told, through a pipe."""

    arm: Arm
    machine: ArmHardware

    def to_json(self) -> str:
        """Write it, without what only the process has that wrote it."""
        return self.model_dump_json(exclude={"arm": {"job": set(CALLABLES)}})


class Failure(Config):
    """An error that ended an arm: its class in ``mamfed_common.errors`` and its message."""

    kind: str
    message: str

    def error(self) -> MamfedError:
        """Return the error, as it was raised in the child."""
        kind: type[MamfedError] = getattr(errors, self.kind)
        return kind(self.message)


class Report(Config):
    """One line of a child: training steps since the last line, a round that ended, or the end."""

    steps: int = 0
    round: RoundRecord | None = None
    failure: Failure | None = None


class Trained(NamedTuple):
    """What became of an arm.

    Attributes:
        arm: The arm. Its results are in its run folder.
        error: Why it has none; None where it has.
    """

    arm: Arm
    error: MamfedError | None


def choose_machine(
    plan: TrainingPlan,
    arms: int,
    *,
    engine: Engine = Engine.PROCESS,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
) -> ArmHardware:
    """Fill in what the user left open.

    Args:
        plan: What the arms follow, more or less.
        arms: How many there are.
        engine: Where sites run.
        device: Where sites train.
        threads: As asked; None: 1 where several arms of small images train on a CPU, whatever
            ``workers`` is, else all cores.
        workers: As asked; None: as many as there are arms, cores and memory for, on a CPU.

    Raises:
        PlanError: There is no such device.
        MamfedError: Arms on Ray cannot be side by side.
    """
    cores = os.cpu_count() or 1
    if engine is Engine.RAY and (workers or 1) > 1:
        raise MamfedError(f"--workers {workers}: arms are side by side with --engine process only")
    together = arms > 1 and engine is Engine.PROCESS and choose_device(device).type == "cpu"
    if threads is None:
        threads = 1 if together and plan.image_size <= SMALL_SIZE else cores
    if workers is None:
        workers = min(cores // threads, _fitting(plan)) if together else 1
    return ArmHardware(engine, device, threads, max(1, min(workers, arms)))


def train_arms(
    arms: Sequence[Arm],
    machine: ArmHardware,
    progress: Progress,
    *,
    keep_going: bool = False,
    title: Callable[[Arm], str] = lambda arm: arm.name,
) -> list[Trained]:
    """Train arms behind progress bars, ``machine.workers`` at once, the longest first.

    The images of all sites are prepared before the first one starts.

    Args:
        arms: What to train. With one worker they take turns in this order.
        machine: What to train them with.
        progress: Where their bars are shown.
        keep_going: Whether an arm that fails leaves the others alone; otherwise it ends them.
        title: What an arm's bar is called.

    Returns:
        What became of each arm, in their order.

    Raises:
        MamfedError: An arm failed, and ``keep_going`` is not set.
    """
    steps = [arm.steps(describe_sites(arm.sites, arm.job.plan)) for arm in arms]
    tasks = [
        _Task(arm, title(arm), machine, progress, count)
        for arm, count in zip(arms, steps, strict=True)
    ]
    together = machine.workers > 1 and len(arms) > 1
    for task in _side_by_side(tasks, machine.workers) if together else _in_turn(tasks):
        if task.error and not keep_going:
            raise task.error
    return [Trained(task.arm, task.error) for task in tasks]


def train_here(arm: Arm, machine: ArmHardware, on_step: Callable[[], None]) -> None:
    """Train one arm in this process.

    Raises:
        RunError: The run failed.
    """
    run_federation(
        arm.sites,
        arm.job,
        engine=machine.engine,
        device=machine.device,
        threads=machine.threads,
        activation_checkpointing=machine.activation_checkpointing,
        on_step=on_step,
    )


@dataclass
class _Task:
    """An arm to train, and its error once it has failed."""

    arm: Arm
    title: str
    machine: ArmHardware
    progress: Progress
    steps: dict[Stage, int]
    error: MamfedError | None = None

    @property
    def length(self) -> int:
        """How many images its whole training shows to the network, about."""
        plan = self.arm.job.plan
        return sum(plan.stage(s).rounds * self.steps[s] * plan.stage(s).batch_size for s in Stage)

    def show(self) -> tuple[Callable[[], None], Callable[[RoundRecord], None]]:
        """Add its bar; return what to call after each step and after each round."""
        on_step, shown = self.progress.start(self.title, self.arm.job.plan, self.steps)
        told = self.arm.job.on_round

        def on_round(record: RoundRecord) -> None:
            shown(record)
            if told:
                told(record)

        return on_step, on_round


def _in_turn(tasks: Sequence[_Task]) -> Iterator[_Task]:
    """Train one after the other in this process; yield each when it has ended."""
    for task in tasks:
        on_step, on_round = task.show()
        arm = replace(task.arm, job=replace(task.arm.job, on_round=on_round))
        try:
            train_here(arm, task.machine, on_step)
        except MamfedError as error:
            task.error = error
        yield task


def _side_by_side(tasks: Sequence[_Task], workers: int) -> Iterator[_Task]:
    """Train each in a child, so many at once; yield each when it has ended.

    Whatever ends this early, an error or Ctrl-C, ends the children that are left.
    """
    waiting = deque(sorted(tasks, key=lambda task: -task.length))
    running: set[_Child] = set()
    with _lifeline() as lifeline, selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    child = _Child(waiting.popleft(), lifeline)
                    running.add(child)
                    selector.register(child.reports, selectors.EVENT_READ, child)
                for key, _ in selector.select():
                    child = key.data
                    if not child.read():
                        selector.unregister(child.reports)
                        child.end()
                        running.remove(child)
                        yield child.task
        finally:
            for child in running:
                child.kill()


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield a descriptor for children that ends when this process does, see ``supervision``."""
    lifeline, our_end = os.pipe()
    try:
        yield lifeline
    finally:
        os.close(our_end)
        os.close(lifeline)


class _Child:
    """The process of one arm.

    Attributes:
        task: The arm.
        reports: The process's stdout.
    """

    def __init__(self, task: _Task, lifeline: int) -> None:
        """Start it, show its bar and give it its order."""
        self.task = task
        self._log = tempfile.TemporaryFile(dir=temporary_folder())
        self._process = start_process(
            module_command(MODULE),
            folder=Path.cwd(),  # what is relative in its order is so to this process's
            env={**os.environ, LIFELINE: str(lifeline)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            pass_fds=(lifeline,),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.reports: IO[bytes] = self._process.stdout
        self._unread = b""
        self._on_step, self._on_round = task.show()
        order = ArmTask(arm=task.arm, machine=task.machine).to_json()
        with suppress(BrokenPipeError), self._process.stdin as pipe:  # its end tells why
            pipe.write(order.encode())

    def read(self) -> bool:
        """Take what it has written; return False where there will be no more."""
        data = os.read(self.reports.fileno(), 1 << 16)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._take(Report.model_validate_json(line))
        return bool(data)

    def end(self) -> None:
        """Wait for its end, keep its log, and say what went wrong, if anything."""
        code = self._process.wait()
        log = self._read_log()
        if code and self.task.error is None:
            self.task.error = RunError(f"{self.task.title}: its process {_how(code)}")
        if self.task.error:
            for line in log.splitlines()[-SHOWN_LINES:]:
                self.task.progress.say(f"{self.task.title}: {line}")
        self._close()

    def kill(self) -> None:
        """End it, with everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _take(self, report: Report) -> None:
        for _ in range(report.steps):
            self._on_step()
        if report.round:
            self._on_round(report.round)
        if report.failure:
            self.task.error = report.failure.error()

    def _read_log(self) -> str:
        """Return the end of what it wrote to stderr, and keep it in the run folder, if any."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LOG_BYTES))
        content = self._log.read()
        folder = RunFolder(self.task.arm.job.folder)
        if content and folder.holds_run():
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(folder.path / LOG, flags, 0o600), "ab") as file:
                file.write(content)
        return content.decode(errors="replace")

    def _close(self) -> None:
        self.reports.close()
        self._log.close()


def _how(code: int) -> str:
    """Say how a process ended that did not say so itself, and what helps."""
    helps = "take fewer --workers" if code == -signal.SIGKILL else "its last lines are above"
    return f"{how_it_ended(code)}; {helps}"


def _fitting(plan: TrainingPlan) -> int:
    """Return how many processes there is memory for, at least 1."""
    batch = max(plan.stage(stage).batch_size for stage in Stage)
    each = BASE_BYTES + BYTES_PER_PIXEL * batch * plan.image_size**2
    available = available_bytes()
    return max(1, available // each) if available is not None else 1


def set_threads(machine: ArmHardware) -> None:
    """Let this process compute with the threads that arms have: what it measures has their bits."""
    torch.set_num_threads(machine.threads)
