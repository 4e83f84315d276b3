"""The size of a plan's network, computed before anything of it is built.

A plan comes from outside: a single number in it can ask for a network of terabytes. Here the
parameters are counted without memory (those of an extension by torch's ``meta`` device), and the
memory of a training step is estimated from the network's levels.
"""

from __future__ import annotations

from functools import lru_cache

from mamfed_common.model.config import BUILT_IN, NetworkConfig
from mamfed_common.plan import Stage, TrainingPlan, weights_size

MAPS_A_LEVEL = 24
"""Feature maps of a level that a training step holds at once: those of both convolution blocks on
both sides of the network, their normalised and activated copies, and their gradients."""
COPIES = 4
"""The parameters, their gradients and AdamW's two moments."""
KERNEL = 9
VALUE_BYTES = 4


@lru_cache(maxsize=64)
def parameters_of(network: NetworkConfig) -> int:
    """Return the number of parameters of a network, without building it."""
    if network.name == BUILT_IN:
        return weights_size.parameters_of(network)
    import torch

    from mamfed_common.model.malignancy_net import MalignancyNetwork

    try:
        with torch.device("meta"):
            built = MalignancyNetwork(network)
    except Exception:  # an extension that cannot be counted, or is not installed
        pairs = zip(network.channels, network.channels[1:], strict=False)
        return sum(4 * KERNEL * above * below for above, below in pairs)
    return sum(parameter.numel() for parameter in built.parameters())


def memory_gib(plan: TrainingPlan) -> float:
    """Return an estimate of the memory of a training step, in GiB, to two digits.

    It is meant to tell a plan that no machine can train from one that a site's machine may;
    ``mamfed-client preflight`` measures.
    """
    stages = [plan.stage(stage) for stage in Stage if plan.stage(stage).rounds]
    batch = max((stage.batch_size + stage.beside_size for stage in stages), default=0)
    side = plan.image_size / plan.network.stem
    values = sum(
        channels * (side / 2**level) ** 2 for level, channels in enumerate(plan.network.channels)
    )
    maps = batch * values * MAPS_A_LEVEL
    total = (maps + COPIES * parameters_of(plan.network)) * VALUE_BYTES
    return float(f"{total / 2**30:.2g}")
