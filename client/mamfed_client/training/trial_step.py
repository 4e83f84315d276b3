"""A few real training steps at a plan's size, to check that they work and measure them."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

import torch

from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.site_data import SiteData
from mamfed_client.site.hardware import Hardware
from mamfed_client.training.devices import train_on
from mamfed_common.domain import Purpose
from mamfed_common.errors import SetupError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.training.batches import RoundContext

MEASURED_STEPS = 2


class StepTrial(NamedTuple):
    """The measurements of a trial step.

    Attributes:
        device: The device.
        seconds: Seconds per step, without the first one, which includes start-up work.
        used: Number of images of each kind that train in the stage.
        peak_bytes: Peak memory that torch reserved on the first GPU; 0 without a GPU.
        total_bytes: Memory of that GPU; 0 without a GPU.
    """

    device: str
    seconds: float
    used: dict[Purpose, int]
    peak_bytes: int = 0
    total_bytes: int = 0


def try_step(
    data: SiteData, plan: TrainingPlan, stage: Stage, hardware: Hardware
) -> StepTrial | None:
    """Train a few steps of a stage on the site's own images; return None if it has none.

    Raises:
        SetupError: The GPU has too little memory for the plan, or there are too few devices.
        PlanError: There is no such device.
        RunError: A process on another device ended.
    """
    samples, benign = data.training(plan, stage)
    used = data.describe().images_used(plan, stage)
    if not used:
        return None
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    devices, batch_size = hardware.choose(), plan.stage(stage).batch_size
    device, batch = devices[0], samples[:batch_size]
    beside = benign if len(samples) else benign[: plan.stage(stage).beside_size]
    context = RoundContext(data.name, 1)
    try:
        seconds = _seconds_per_step(hardware, stage, batch, beside, plan, context)
    except torch.OutOfMemoryError:
        raise SetupError(
            f"{device}: not enough memory for {plan.image_size} pixels and batches of "
            f"{batch_size}; free some, set activation_checkpointing: true, or use a smaller plan"
        ) from None
    name = str(device) if len(devices) == 1 else f"{len(devices)} x {device.type}"
    if device.type != "cuda":
        return StepTrial(name, seconds, used)
    peak = torch.cuda.max_memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    return StepTrial(name, seconds, used, peak, total)


def _seconds_per_step(
    hardware: Hardware,
    stage: Stage,
    batch: StoredSamples,
    benign: StoredSamples,
    plan: TrainingPlan,
    round_context: RoundContext,
) -> float:
    """Train a few steps and return the mean duration of all but the first."""
    # A round of several steps prepares the next batch during training, as in a real round.
    steps = {"rounds": 1, "local_epochs": None, "local_steps": 1 + MEASURED_STEPS}
    short = plan.stage(stage).model_copy(update=steps)
    once = plan.model_copy(update={str(stage): short})
    times = [monotonic()]  # the start, then the end of each step
    train_on(
        hardware,
        stage,
        state_of(build_network(once.network, once.seed)),
        batch,
        once,
        round_context,
        benign=benign,
        on_step=lambda: times.append(monotonic()),
    )
    return (times[-1] - times[1]) / MEASURED_STEPS
