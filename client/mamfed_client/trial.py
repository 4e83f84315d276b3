"""One real training step at a plan's size, to see that it works and what it takes."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

import torch

from mamfed_client.site import SiteData
from mamfed_common.batches import Turn
from mamfed_common.device import choose_device
from mamfed_common.errors import SetupError
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.state import state_of
from mamfed_common.subtraction import build_network
from mamfed_common.training import train


class Trial(NamedTuple):
    """What a step took.

    Attributes:
        device: Where it ran.
        seconds: How long it took, the first start of the device included.
        images: How many images train in the stage.
        peak_bytes: The most GPU memory that torch held; 0 off a GPU.
        total_bytes: What the GPU has; 0 off a GPU.
    """

    device: str
    seconds: float
    images: int
    peak_bytes: int = 0
    total_bytes: int = 0


def try_step(
    data: SiteData, plan: TrainingPlan, stage: Stage, device_name: str, threads: int | None
) -> Trial | None:
    """Train one step of a stage on the site's own images; None where it has none.

    Raises:
        SetupError: The GPU's memory is too small for the plan.
        PlanError: The device is not there.
    """
    samples, benign = data.training(stage)
    if not len(samples):
        return None
    if threads is not None:
        torch.set_num_threads(threads)
    device, batch_size = choose_device(device_name), plan.stage(stage).batch_size
    batch = [samples[i] for i in range(min(batch_size, len(samples)))]
    short = plan.stage(stage).model_copy(update={"rounds": 1, "local_epochs": 1})
    once = plan.model_copy(update={str(stage): short})
    started = monotonic()
    try:
        state = state_of(build_network(once.network, once.seed))
        turn = Turn(data.name, 1)
        train(stage, state, batch, once, turn, device=device, benign=benign)
    except torch.OutOfMemoryError:
        raise SetupError(
            f"{device}: its memory is too small for {plan.image_size} pixels and batches of "
            f"{batch_size}; free it, or ask for a smaller plan"
        ) from None
    seconds = monotonic() - started
    if device.type != "cuda":
        return Trial(str(device), seconds, len(samples))
    peak = torch.cuda.max_memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    return Trial(str(device), seconds, len(samples), peak, total)
