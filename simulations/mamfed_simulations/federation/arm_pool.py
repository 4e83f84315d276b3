"""Train arms in parallel, each in its own process, and choose how many processes to run.

At the demo's image sizes, two processes of one thread do as much work on a busy machine as five of
two threads (``docs/decisions/0031-arms-side-by-side.md``), and results do not depend on the number
of cores or processes. A child is ``python -m mamfed_simulations.federation.arm_worker``: it reads
its task from stdin, writes one :class:`Report` per line to stdout, and exits with this process.
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
"""File in an arm's run folder with the process's stderr, if there was any."""
LOG_BYTES = 2**20
SHOWN_LINES = 20
CALLABLES = frozenset({"names", "stopping", "on_round", "on_event"})
"""Fields of a job that cannot be sent to another process."""

SMALL_SIZE = 512
"""Largest image side at which parallel arms use one thread each (decision 0031)."""
BASE_BYTES = 800 * 2**20
BYTES_PER_PIXEL = 1100
"""Memory of a process: its libraries, and the bytes of a training step per pixel of a batch."""


@dataclass(frozen=True)
class ArmHardware:
    """Engine, device and parallelism of the training of arms.

    Attributes:
        engine: Where sites run.
        device: Device on which sites train.
        threads: CPU threads per site; the same number gives identical results.
        workers: Arms trained in parallel, each in its own process; with 1, arms train one after
            the other in this process. Does not affect results.
        activation_checkpointing: Whether sites use less memory and more time.
    """

    engine: Engine = Engine.PROCESS
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    activation_checkpointing: bool = False


class ArmTask(Config):
    """The task of a child, sent through a pipe."""

    arm: Arm
    machine: ArmHardware

    def to_json(self) -> str:
        """Serialise the task without callables, which only this process can run."""
        return self.model_dump_json(exclude={"arm": {"job": set(CALLABLES)}})


class Failure(Config):
    """An error that ended an arm: its class in ``mamfed_common.errors`` and its message."""

    kind: str
    message: str

    def error(self) -> MamfedError:
        """Return the error as raised in the child."""
        kind: type[MamfedError] = getattr(errors, self.kind)
        return kind(self.message)


class Report(Config):
    """One line from a child: training steps since the last line, a finished round, or a failure."""

    steps: int = 0
    round: RoundRecord | None = None
    failure: Failure | None = None


class Trained(NamedTuple):
    """The outcome of training an arm.

    Attributes:
        arm: The arm. Its results are in its run folder.
        error: Why it has no results; None on success.
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
    """Choose the settings that the user did not give.

    Args:
        plan: Plan that the arms follow, possibly with small changes.
        arms: Number of arms.
        engine: Where sites run.
        device: Device on which sites train.
        threads: Requested number. None: 1 if several arms with small images train on a CPU,
            regardless of ``workers``; otherwise all cores.
        workers: Requested number. None: as many as arms, cores and memory allow on a CPU.

    Raises:
        PlanError: The device does not exist.
        MamfedError: Parallel arms were requested on Ray.
    """
    cores = os.cpu_count() or 1
    if engine is Engine.RAY and (workers or 1) > 1:
        raise MamfedError(f"--workers {workers}: parallel arms need --engine process")
    parallel = arms > 1 and engine is Engine.PROCESS and choose_device(device).type == "cpu"
    if threads is None:
        threads = 1 if parallel and plan.image_size <= SMALL_SIZE else cores
    if workers is None:
        workers = min(cores // threads, _processes_that_fit(plan)) if parallel else 1
    return ArmHardware(engine, device, threads, max(1, min(workers, arms)))


def train_arms(
    arms: Sequence[Arm],
    machine: ArmHardware,
    progress: Progress,
    *,
    keep_going: bool = False,
    title: Callable[[Arm], str] = lambda arm: arm.name,
) -> list[Trained]:
    """Train arms with progress bars, ``machine.workers`` at once, the longest first.

    The images of all sites are prepared before the first arm starts.

    Args:
        arms: Arms to train; a single worker trains them in this order.
        machine: Engine, device, threads and workers.
        progress: Display of the progress bars.
        keep_going: Whether the other arms continue when one fails; otherwise they are stopped.
        title: Returns the label of an arm's bar.

    Returns:
        The outcome of each arm, in the order of ``arms``.

    Raises:
        MamfedError: An arm failed, and ``keep_going`` is not set.
    """
    steps = [arm.steps(describe_sites(arm.sites, arm.job.plan)) for arm in arms]
    tasks = [
        _Task(arm, title(arm), machine, progress, count)
        for arm, count in zip(arms, steps, strict=True)
    ]
    parallel = machine.workers > 1 and len(arms) > 1
    for task in _in_parallel(tasks, machine.workers) if parallel else _in_turn(tasks):
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
    """An arm to train, and its error if it has failed."""

    arm: Arm
    title: str
    machine: ArmHardware
    progress: Progress
    steps: dict[Stage, int]
    error: MamfedError | None = None

    @property
    def length(self) -> int:
        """Approximate number of images that the network sees during the whole training."""
        plan = self.arm.job.plan
        return sum(plan.stage(s).rounds * self.steps[s] * plan.stage(s).batch_size for s in Stage)

    def show(self) -> tuple[Callable[[], None], Callable[[RoundRecord], None]]:
        """Add its progress bar; return the callbacks for each step and each round."""
        on_step, show_round = self.progress.start(self.title, self.arm.job.plan, self.steps)
        job_on_round = self.arm.job.on_round

        def on_round(record: RoundRecord) -> None:
            show_round(record)
            if job_on_round:
                job_on_round(record)

        return on_step, on_round


def _in_turn(tasks: Sequence[_Task]) -> Iterator[_Task]:
    """Train one arm after the other in this process; yield each when it ends."""
    for task in tasks:
        on_step, on_round = task.show()
        arm = replace(task.arm, job=replace(task.arm.job, on_round=on_round))
        try:
            train_here(arm, task.machine, on_step)
        except MamfedError as error:
            task.error = error
        yield task


def _in_parallel(tasks: Sequence[_Task], workers: int) -> Iterator[_Task]:
    """Train each arm in a child, ``workers`` at once; yield each when it ends.

    An error or Ctrl-C here also ends the remaining children.
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
    """Yield a pipe for children that closes when this process ends (``process_supervisor``)."""
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
        """Start the process, show its bar and send its task."""
        self.task = task
        self._log = tempfile.TemporaryFile(dir=temporary_folder())
        self._process = start_process(
            module_command(MODULE),
            folder=Path.cwd(),  # relative paths in the task mean this process's folder
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
        message = ArmTask(arm=task.arm, machine=task.machine).to_json()
        with suppress(BrokenPipeError), self._process.stdin as pipe:  # end() reports the cause
            pipe.write(message.encode())

    def read(self) -> bool:
        """Handle the available reports; return False at the end of the output."""
        data = os.read(self.reports.fileno(), 1 << 16)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._handle(Report.model_validate_json(line))
        return bool(data)

    def end(self) -> None:
        """Wait for the process to exit, save its log, and report its error, if any."""
        code = self._process.wait()
        log = self._read_log()
        if code and self.task.error is None:
            self.task.error = RunError(f"{self.task.title}: its process {_how(code)}")
        if self.task.error:
            for line in log.splitlines()[-SHOWN_LINES:]:
                self.task.progress.say(f"{self.task.title}: {line}")
        self._close()

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _handle(self, report: Report) -> None:
        for _ in range(report.steps):
            self._on_step()
        if report.round:
            self._on_round(report.round)
        if report.failure:
            self.task.error = report.failure.error()

    def _read_log(self) -> str:
        """Return the last ``LOG_BYTES`` of its stderr, and append them to the run folder's log."""
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
    """Describe how a process ended that reported no error, and what to do."""
    advice = "use fewer --workers" if code == -signal.SIGKILL else "its last lines are above"
    return f"{how_it_ended(code)}; {advice}"


def _processes_that_fit(plan: TrainingPlan) -> int:
    """Return how many processes fit into the available memory, at least 1."""
    batch = max(plan.stage(stage).batch_size for stage in Stage)
    each = BASE_BYTES + BYTES_PER_PIXEL * batch * plan.image_size**2
    available = available_bytes()
    return max(1, available // each) if available is not None else 1


def set_threads(machine: ArmHardware) -> None:
    """Use the arms' number of threads in this process, so that its measurements match theirs."""
    torch.set_num_threads(machine.threads)
