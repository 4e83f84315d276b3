"""Weights in fewer bytes, where the plan asks for it (``federation.wire: compact``).

To a site an array of two or more dimensions travels as float16. Back comes what training changed
of what the site *received*, as int8 with one float32 scale for each output channel (the first
dimension). The server adds that to its own float32 weights, so what float16 cannot hold is neither
lost nor piled up over rounds. Arrays of one dimension (norms, biases, gain and offset: under 1 %
of the bytes) travel as they are, both ways.

Bounds on what a value loses (both round to nearest):

- down, a weight ``w``: ``|w| / 2**11``, and at most ``2**-25`` where ``|w| < 2**-14``. A weight
  beyond float16's 65,504 is refused.
- up, a change ``d``: ``max|d| / 254`` over its channel, and what float32 itself rounds.

With ``float32``, the default, all arrays travel as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mamfed_common.errors import WeightsError
from mamfed_common.model.state_dict import State, check_state, is_finite
from mamfed_common.plan import Wire

LEVELS = 127
"""Steps of int8 on either side of 0."""
SCALE = "/scale"
"""What the name of a channel's scales ends with; no array of a network has a slash in its name."""


def weights_to_send(state: Mapping[str, Tensor], wire: Wire) -> State:
    """Return the arrays that stand for a network's weights on the way to a site.

    Raises:
        WeightsError: A weight is beyond what float16 holds.
    """
    if wire == "float32":
        return dict(state)
    sent = {name: t.half() if _is_large(t) else t for name, t in state.items()}
    for name, tensor in sent.items():
        if not is_finite(tensor):
            raise WeightsError(
                f"array {name!r} holds values beyond float16's 65504, or NaN: "
                "the plan's federation.wire must be float32"
            )
    return sent


def weights_sent_like(expected: Mapping[str, Tensor], wire: Wire) -> State:
    """Return arrays of the names, shapes and dtypes that :func:`weights_to_send` makes."""
    if wire == "float32":
        return dict(expected)
    return {n: _shape(t, torch.float16) if _is_large(t) else t for n, t in expected.items()}


def weights_received(sent: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Return the weights that checked arrays stand for."""
    return {name: sent[name].to(tensor.dtype) for name, tensor in expected.items()}


def update_to_send(state: Mapping[str, Tensor], start: Mapping[str, Tensor], wire: Wire) -> State:
    """Return the arrays that stand for trained weights on the way to the server.

    Args:
        state: The trained weights.
        start: The weights that the site received.
        wire: How they travel.
    """
    if wire == "float32":
        return dict(state)
    sent: State = {}
    for name, tensor in state.items():
        if _is_large(tensor):
            sent[name], sent[name + SCALE] = _quantised(tensor - start[name])
        else:
            sent[name] = tensor
    return sent


def update_sent_like(start: Mapping[str, Tensor], wire: Wire) -> State:
    """Return arrays of the names, shapes and dtypes that :func:`update_to_send` makes."""
    if wire == "float32":
        return dict(start)
    sent: State = {}
    for name, tensor in start.items():
        if _is_large(tensor):
            sent[name] = _shape(tensor, torch.int8)
            sent[name + SCALE] = torch.empty(len(tensor), device="meta")
        else:
            sent[name] = tensor
    return sent


def update_received(sent: Mapping[str, Tensor], start: Mapping[str, Tensor], wire: Wire) -> State:
    """Return the trained weights that checked arrays stand for.

    Args:
        sent: What the site sent.
        start: The server's own weights, which the site received rounded.
        wire: How they travelled.

    Raises:
        WeightsError: A scale is negative, or so large that a weight becomes infinite.
    """
    if wire == "float32":
        return dict(sent)
    state: State = {}
    for name, tensor in start.items():
        if not _is_large(tensor):
            state[name] = sent[name]
            continue
        scale = sent[name + SCALE]
        if (scale < 0).any():
            raise WeightsError(f"array {name!r} has a negative scale")
        change = sent[name].to(tensor.dtype).mul_(_by_channel(scale, tensor))
        state[name] = change.add_(tensor)
    check_state(state, start)
    return state


def _quantised(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return a change as int8 and its scales ``(channels,)``.

    A channel that did not change has the scale 0. One that holds NaN or infinity has such a scale,
    for which the server refuses it by name as it does in float32.
    """
    scale = change.flatten(1).abs().amax(1) / LEVELS
    # 1 / scale overflows below float32's smallest normal: so small a change is none.
    scale = torch.where(scale < torch.finfo(scale.dtype).tiny, 0, scale)
    steps = change / _by_channel(torch.where(scale == 0, 1, scale), change)
    steps = steps.nan_to_num_(0).round_().clamp_(-LEVELS, LEVELS)
    return steps.to(torch.int8), scale


def _by_channel(scale: Tensor, like: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (like.ndim - 1))


def _is_large(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.dtype == torch.float32 and tensor.numel() > 0


def _shape(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of a shape and dtype that takes no memory."""
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
