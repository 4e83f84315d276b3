"""A network's weights as plain named tensors, and the check that they fit a network.

torch is imported where it is used: a coordinator that waits for its sites has no weights yet.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mamfed_common.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
"""Weights by name: contiguous tensors on the CPU."""


def state_of(network: nn.Module) -> State:
    """Return a copy of a network's weights and buffers, contiguous and on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that weights fit a network: the same names, shapes and dtypes, all values finite.

    Args:
        state: The weights to check.
        expected: Weights with the right names, shapes and dtypes; their values do not matter.

    Raises:
        WeightsError: They do not fit; the message names the first array that does not.
    """
    if missing := sorted(expected.keys() - state.keys()):
        raise WeightsError(f"array {missing[0]!r} is missing ({len(missing)} missing in all)")
    if unexpected := sorted(state.keys() - expected.keys()):
        raise WeightsError(
            f"array {unexpected[0]!r} is not part of this network ({len(unexpected)} such in all)"
        )
    for name, reference in expected.items():
        tensor = state[name]
        if tensor.shape != reference.shape:
            raise WeightsError(
                f"array {name!r} has shape {tuple(tensor.shape)}, expected {tuple(reference.shape)}"
            )
        if tensor.dtype != reference.dtype:
            raise WeightsError(
                f"array {name!r} has dtype {tensor.dtype}, expected {reference.dtype}"
            )
        if tensor.is_floating_point() and not is_finite(tensor):
            raise WeightsError(f"array {name!r} holds NaN or infinity")


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite, in one pass and without a copy."""
    if not tensor.numel():
        return True
    least, most = tensor.aminmax()  # both are NaN if any value is
    return math.isfinite(least) and math.isfinite(most)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return one SHA-256 over names, dtypes, shapes and values, sorted by name."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
