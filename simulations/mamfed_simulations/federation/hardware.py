"""The engine, device, threads and parallel processes with which arms train."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from mamfed_common.errors import MamfedError
from mamfed_common.model.malloc import available_bytes
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.device import choose_device
from mamfed_simulations.federation.engine import Engine

SMALL_SIZE = 512
"""Largest image side at which parallel arms use one thread each (decision 0031)."""
BASE_BYTES = 800 * 2**20
BYTES_PER_PIXEL = 1200
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


def _processes_that_fit(plan: TrainingPlan) -> int:
    """Return how many processes fit into the available memory, at least 1."""
    batch = max(plan.stage(stage).batch_size for stage in Stage)
    each = BASE_BYTES + BYTES_PER_PIXEL * batch * plan.image_size**2
    available = available_bytes()
    return max(1, available // each) if available is not None else 1


def set_threads(machine: ArmHardware) -> None:
    """Use the arms' number of threads in this process, so that its measurements match theirs."""
    torch.set_num_threads(machine.threads)
