"""Train arms, one after the other in this process or in parallel, each in a process of its own.

At the demo's image sizes, two processes of one thread do as much work on a busy machine as five of
two threads (``docs/decisions/0031-arms-side-by-side.md``), and results do not depend on the number
of cores or processes.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.lifeline import open_lifeline
from mamfed_simulations.federation.arm_process import ArmProcess, ArmTraining
from mamfed_simulations.federation.arms import Arm, describe_sites
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.reporting.progress import Progress


class Trained(NamedTuple):
    """The outcome of training an arm.

    Attributes:
        arm: The arm. Its results are in its run folder.
        error: Why it has no results; None on success.
    """

    arm: Arm
    error: MamfedError | None


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
        ArmTraining(arm, title(arm), machine, progress, count)
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


def _in_turn(tasks: Sequence[ArmTraining]) -> Iterator[ArmTraining]:
    """Train one arm after the other in this process; yield each when it ends."""
    for task in tasks:
        on_step, on_round = task.show()
        arm = replace(task.arm, job=replace(task.arm.job, on_round=on_round))
        try:
            train_here(arm, task.machine, on_step)
        except MamfedError as error:
            task.error = error
        yield task


def _in_parallel(tasks: Sequence[ArmTraining], workers: int) -> Iterator[ArmTraining]:
    """Train each arm in a child, ``workers`` at once; yield each when it ends.

    An error or Ctrl-C here also ends the remaining children.
    """
    waiting = deque(sorted(tasks, key=lambda task: -task.length))
    running: set[ArmProcess] = set()
    with open_lifeline() as lifeline, selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    child = ArmProcess(waiting.popleft(), lifeline)
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
