"""Compact encoding of weights for the wire (``federation.wire: compact``).

The server sends arrays of two or more dimensions as float16. A site answers with the change against
the weights that it *received*, as int8 with one float32 scale per output channel (the first
dimension). The server adds the change to its own float32 weights, so the rounding of float16 is
neither lost nor accumulated over rounds. Arrays of one dimension (norms, biases, gain and offset:
under 1 % of the bytes) are sent unchanged in both directions.

Bounds on the error of a value (both directions round to nearest):

- to a site, a weight ``w``: ``|w| / 2**11``, and at most ``2**-25`` if ``|w| < 2**-14``. Weights
  beyond float16's 65,504 are refused.
- to the server, a change ``d``: ``max|d| / 254`` over its channel, plus float32's own rounding.

With ``float32``, the default, all arrays are sent unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mamfed_common.errors import WeightsError
from mamfed_common.model.state_dict import State, check_state, is_finite
from mamfed_common.plan import Wire

LEVELS = 127
"""Number of int8 steps on either side of 0."""
SCALE = "/scale"
"""Suffix of the names of scale arrays; no array of a network has a slash in its name."""


def weights_to_send(state: Mapping[str, Tensor], wire: Wire) -> State:
    """Encode a network's weights for a site.

    Raises:
        WeightsError: A weight exceeds the range of float16.
    """
    if wire == "float32":
        return dict(state)
    sent = {name: t.half() if _is_large(t) else t for name, t in state.items()}
    for name, tensor in sent.items():
        if not is_finite(tensor):
            raise WeightsError(
                f"array {name!r} holds NaN or values beyond float16's 65504: "
                "the plan's federation.wire must be float32"
            )
    return sent


def weights_sent_like(expected: Mapping[str, Tensor], wire: Wire) -> State:
    """Return arrays with the names, shapes and dtypes that :func:`weights_to_send` returns."""
    if wire == "float32":
        return dict(expected)
    return {n: _shape(t, torch.float16) if _is_large(t) else t for n, t in expected.items()}


def weights_received(sent: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Decode checked arrays from the server into weights."""
    return {name: sent[name].to(tensor.dtype) for name, tensor in expected.items()}


def update_to_send(
    state: Mapping[str, Tensor], global_state: Mapping[str, Tensor], wire: Wire
) -> State:
    """Encode trained weights for the server.

    Args:
        state: The trained weights.
        global_state: The weights that the site received.
        wire: The encoding.
    """
    if wire == "float32":
        return dict(state)
    sent: State = {}
    for name, tensor in state.items():
        if _is_large(tensor):
            sent[name], sent[name + SCALE] = _quantised(tensor - global_state[name])
        else:
            sent[name] = tensor
    return sent


def update_sent_like(global_state: Mapping[str, Tensor], wire: Wire) -> State:
    """Return arrays with the names, shapes and dtypes that :func:`update_to_send` returns."""
    if wire == "float32":
        return dict(global_state)
    sent: State = {}
    for name, tensor in global_state.items():
        if _is_large(tensor):
            sent[name] = _shape(tensor, torch.int8)
            sent[name + SCALE] = torch.empty(len(tensor), device="meta")
        else:
            sent[name] = tensor
    return sent


def update_received(
    sent: Mapping[str, Tensor], global_state: Mapping[str, Tensor], wire: Wire
) -> State:
    """Decode checked arrays from a site into trained weights.

    Args:
        sent: The arrays that the site sent.
        global_state: The server's own weights, which the site received rounded.
        wire: The encoding.

    Raises:
        WeightsError: A scale is negative, or so large that a weight becomes infinite.
    """
    if wire == "float32":
        return dict(sent)
    state: State = {}
    for name, tensor in global_state.items():
        if not _is_large(tensor):
            state[name] = sent[name]
            continue
        scale = sent[name + SCALE]
        if (scale < 0).any():
            raise WeightsError(f"array {name!r} has a negative scale")
        change = sent[name].to(tensor.dtype).mul_(_by_channel(scale, tensor))
        state[name] = change.add_(tensor)
    check_state(state, global_state)
    return state


def _quantised(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return a change as int8 and its scales ``(channels,)``.

    An unchanged channel has scale 0. A channel with NaN or infinity has a scale of NaN or infinity,
    and the server refuses it by name, as it does in float32.
    """
    scale = change.flatten(1).abs().amax(1) / LEVELS
    # 1 / scale overflows below float32's smallest normal; such a change counts as none.
    scale = torch.where(scale < torch.finfo(scale.dtype).tiny, 0, scale)
    steps = change / _by_channel(torch.where(scale == 0, 1, scale), change)
    steps = steps.nan_to_num_(0).round_().clamp_(-LEVELS, LEVELS)
    return steps.to(torch.int8), scale


def _by_channel(scale: Tensor, like: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (like.ndim - 1))


def _is_large(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.dtype == torch.float32 and tensor.numel() > 0


def _shape(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor with a shape and dtype that occupies no memory."""
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
