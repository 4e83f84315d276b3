"""A few real training steps at a plan's size, to see that they work and what one takes."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

import torch

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
    """What a step took.

    Attributes:
        device: Where it ran.
        seconds: How long a step takes once the first is over, which starts what is not yet warm.
        used: How many images of each kind train in the stage.
        peak_bytes: The most memory that torch held on the first GPU; 0 off a GPU.
        total_bytes: What that GPU has; 0 off a GPU.
    """

    device: str
    seconds: float
    used: dict[Purpose, int]
    peak_bytes: int = 0
    total_bytes: int = 0


def try_step(
    data: SiteData, plan: TrainingPlan, stage: Stage, hardware: Hardware
) -> StepTrial | None:
    """Train some steps of a stage on the site's own images; None where it has none.

    Raises:
        SetupError: The GPU's memory is too small for the plan, or there are not so many devices.
        PlanError: The device is not there.
        RunError: A process on another device ended.
    """
    samples, benign = data.training(plan, stage)
    used = data.describe().images_used(plan, stage)
    if not used:
        return None
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    devices, batch_size = hardware.choose(), plan.stage(stage).batch_size
    device, batch = devices[0], samples.first(batch_size)
    beside = benign if len(samples) else benign.first(plan.stage(stage).beside_size)
    # Counted in steps: the next batch is made while one is trained on, as within a round.
    steps = {"rounds": 1, "local_epochs": None, "local_steps": 1 + MEASURED_STEPS}
    short = plan.stage(stage).model_copy(update=steps)
    once = plan.model_copy(update={str(stage): short})
    times = [monotonic()]  # the start, then the end of each step
    try:
        state = state_of(build_network(once.network, once.seed))
        round_context = RoundContext(data.name, 1)
        train_on(
            hardware,
            stage,
            state,
            batch,
            once,
            round_context,
            benign=beside,
            on_step=lambda: times.append(monotonic()),
        )
    except torch.OutOfMemoryError:
        raise SetupError(
            f"{device}: its memory is too small for {plan.image_size} pixels and batches of "
            f"{batch_size}; free it, set activation_checkpointing: true, or ask for a smaller plan"
        ) from None
    seconds = (times[-1] - times[1]) / MEASURED_STEPS
    name = str(device) if len(devices) == 1 else f"{len(devices)} x {device.type}"
    if device.type != "cuda":
        return StepTrial(name, seconds, used)
    peak = torch.cuda.max_memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    return StepTrial(name, seconds, used, peak, total)
