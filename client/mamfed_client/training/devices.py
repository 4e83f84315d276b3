"""Training on one device in this process, or on several with a worker process for each further one.

A worker is ``python -m mamfed_client.training.device_worker``. It reads the samples from the same
files as this process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from pydantic import Field

from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.sample_store import StoredSample
from mamfed_client.site.hardware import Hardware
from mamfed_common.config import Config
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.data_parallel import ProcessRank
from mamfed_common.training.inference import OnStep
from mamfed_common.training.optimizer_state import OptimizerState
from mamfed_common.training.round_checkpoint import RoundCheckpointer, TrainingResult
from mamfed_common.training.stages import train
from mamfed_common.training.worker_processes import launch

if TYPE_CHECKING:
    from mamfed_client.training.device_worker import StoredSamples as NamedSamples

    AnySamples: TypeAlias = StoredSamples | NamedSamples

WORKER_MODULE = "mamfed_client.training.device_worker"


class StoredImage(Config):
    """A prepared sample on disk.

    Attributes:
        name: The site's name for the image.
        path: The file.
        key: Key of an encrypted sample, in hexadecimal.
    """

    name: str
    path: Path
    key: str | None = Field(default=None, repr=False)

    def entry(self) -> StoredSample:
        """Return the sample in the store, which can be read."""
        return StoredSample(self.path, bytes.fromhex(self.key) if self.key else None)


class WorkerTask(Config):
    """The task that a worker receives through a pipe: the round, and its rank in the group."""

    place: ProcessRank
    stage: Stage
    plan: TrainingPlan
    round_context: RoundContext
    samples: tuple[StoredImage, ...]
    benign: tuple[StoredImage, ...]
    threads: int
    activation_checkpointing: bool


def train_on(
    hardware: Hardware,
    stage: Stage,
    state: State,
    samples: AnySamples,
    plan: TrainingPlan,
    round_context: RoundContext,
    *,
    benign: AnySamples,
    on_step: OnStep | None = None,
    checkpointer: RoundCheckpointer | None = None,
    optimizer_state: OptimizerState | None = None,
) -> TrainingResult:
    """Train one site's part of one round, see :func:`mamfed_common.training.stages.train`.

    Raises:
        PlanError, SetupError: There are no such devices, or too few.
        RunError: A worker ended before the round was over.
        WeightsError: ``state`` is not of the plan's network.
    """
    devices = hardware.choose()
    train_here = partial(
        train,
        stage,
        state,
        samples,
        plan,
        round_context,
        device=devices[0],
        benign=benign,
        on_step=on_step,
        checkpointer=checkpointer,
        optimizer_state=optimizer_state,
        activation_checkpointing=hardware.activation_checkpointing,
    )
    if len(devices) == 1 or (checkpointer and checkpointer.result()):
        return train_here()
    tasks = _worker_tasks(hardware, stage, samples, benign, plan, round_context)
    with launch(WORKER_MODULE, devices, tasks) as process_group:
        return train_here(process_group=process_group)


def _worker_tasks(
    hardware: Hardware,
    stage: Stage,
    samples: AnySamples,
    benign: AnySamples,
    plan: TrainingPlan,
    round_context: RoundContext,
) -> Callable[[ProcessRank], str]:
    """Return a function that returns the task of the worker at a rank, as JSON."""

    def task_of(place: ProcessRank) -> str:
        return WorkerTask(
            place=place,
            stage=stage,
            plan=plan,
            round_context=round_context,
            samples=stored_images(samples),
            benign=stored_images(benign),
            threads=hardware.threads or max(1, torch.get_num_threads() // place.world_size),
            activation_checkpointing=hardware.activation_checkpointing,
        ).model_dump_json()

    return task_of


def stored_images(samples: AnySamples) -> tuple[StoredImage, ...]:
    """Return where samples are on disk, for another process."""
    entries = map(samples.entry, range(len(samples)))
    return tuple(
        StoredImage(name=name, path=entry.path, key=entry.key.hex() if entry.key else None)
        for name, entry in entries
    )
