"""FedAvg as a running mean: one model in memory, whatever the number of sites."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mamfed_common.state import State


class RunningMean:
    """Mean of weights, weighted by numbers of examples (McMahan et al., 2017).

    Adding ``x`` with weight ``w`` moves the mean by ``w / total * (x - mean)``. In the same order
    the same updates give the same bits, so callers add sites in the order of their names.
    """

    def __init__(self) -> None:
        """Start with no update."""
        self._mean: State = {}
        self.total_weight = 0
        self.updates = 0

    def add(self, state: Mapping[str, Tensor], num_examples: int) -> None:
        """Add one checked update; ``num_examples`` is its weight, at least 1."""
        self.total_weight += num_examples
        self.updates += 1
        if not self._mean:
            self._mean = {name: tensor.clone() for name, tensor in state.items()}
            return
        share = num_examples / self.total_weight
        for name, mean in self._mean.items():
            if mean.is_floating_point():
                mean.lerp_(state[name], share)
            else:  # a counter has no mean: keep the furthest one
                torch.maximum(mean, state[name], out=mean)

    def result(self) -> State:
        """Return the mean; at least one update must have been added."""
        assert self.updates, "mean of no update"
        return self._mean
