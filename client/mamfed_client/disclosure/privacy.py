"""Clipping and noise, applied to an update before it leaves if the site's policy says so.

Clipping bounds how far one site can move the average; with noise it is the Gaussian mechanism at
the level of sites (McMahan et al. 2018, arXiv:1710.06963, section 2). The noise is computed in
floating point, so there is no formal guarantee (Mironov 2012, doi:10.1145/2382196.2382264).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from secrets import token_bytes

import torch
from torch import Tensor

from mamfed_client.site.policy import Privacy
from mamfed_common.errors import SetupError, WeightsError
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import Wire
from mamfed_common.protocol.quantization import update_received, update_to_send
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_common.security.secret_noise import gaussian

SECRET_BYTES = 32
ROUNDING = 1e-6
"""First relative reduction of an update that rounding left longer than the clip norm."""


def protect(
    state: Mapping[str, Tensor], global_state: Mapping[str, Tensor], privacy: Privacy, secret: bytes
) -> State:
    """Clip an update and add noise according to the policy; without either, return it unchanged.

    Args:
        state: The trained weights.
        global_state: The weights from which the round started.
        privacy: The policy.
        secret: Random bytes known only to this site. They give the same update the same noise, so
            that repeated requests cannot average the noise away.

    Raises:
        WeightsError: The update is to be clipped and contains NaN or infinity.
    """
    if privacy.clip_norm is None:
        return dict(state)
    clipped = clip(state, global_state, privacy.clip_norm)
    if not privacy.noise_multiplier:
        return clipped
    sigma = privacy.noise_multiplier * privacy.clip_norm
    # The same noise in two strengths could be solved for, so the strength is part of the seed.
    strength = f"{privacy.clip_norm!r} {privacy.noise_multiplier!r} ".encode()
    seed = secret + bytes.fromhex(state_sha256(state) + state_sha256(global_state)) + strength
    return {name: _with_noise(name, clipped[name], sigma, seed) for name in clipped}


def arrays_to_send(
    state: Mapping[str, Tensor], global_state: Mapping[str, Tensor], wire: Wire, privacy: Privacy
) -> State:
    """Return the arrays that represent a protected update on the wire.

    If rounding makes a clipped update longer than the clip norm, it is shortened again; an update
    with noise may be longer.
    """
    sent, shrink = update_to_send(state, global_state, wire), ROUNDING
    if privacy.clip_norm is None or privacy.noise_multiplier:
        return sent
    received = update_received(sent, global_state, wire)
    while update_norm(received, global_state) > privacy.clip_norm:
        shorter = clip(received, global_state, privacy.clip_norm * (1 - shrink))
        sent, shrink = update_to_send(shorter, global_state, wire), min(2 * shrink, 0.5)
        received = update_received(sent, global_state, wire)
    return sent


def clip(state: Mapping[str, Tensor], global_state: Mapping[str, Tensor], norm: float) -> State:
    """Shorten an update, one vector over all floating-point tensors, to at most a norm.

    Raises:
        WeightsError: It contains NaN or infinity.
    """
    length = update_norm(state, global_state)
    if not math.isfinite(length):
        raise WeightsError("the update contains NaN or infinity, so it cannot be clipped")
    clipped, factor, shrink = dict(state), norm / length if length else 1.0, ROUNDING
    while update_norm(clipped, global_state) > norm:
        clipped = {name: _moved(global_state[name], state[name], factor) for name in state}
        factor, shrink = factor * (1 - shrink), min(2 * shrink, 0.5)
    return clipped


def update_norm(state: Mapping[str, Tensor], global_state: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of an update over its floating-point tensors, in float64."""
    squares = (
        float((tensor.double() - global_state[name].double()).square().sum())
        for name, tensor in state.items()
        if tensor.is_floating_point()
    )
    return math.sqrt(sum(squares))


def read_secret(path: Path) -> bytes:
    """Read the secret from which noise is drawn; the first call creates it (0600).

    Raises:
        SetupError: The file has the wrong size.
    """
    if not path.exists():
        private_directory(path.parent)
        write_atomic(path, token_bytes(SECRET_BYTES))
    secret = read_bytes(path, KEY_BYTES)
    if len(secret) != SECRET_BYTES:
        raise SetupError(
            f"{path}: found {len(secret)} bytes, expected {SECRET_BYTES}; restore it from backup, "
            "or remove it, in which case repeated requests for an update get different noise"
        )
    return secret


def _moved(start: Tensor, end: Tensor, factor: float) -> Tensor:
    if not end.is_floating_point():
        return end
    moved = start.double() + factor * (end.double() - start.double())
    return moved.to(end.dtype)


def _with_noise(name: str, tensor: Tensor, sigma: float, seed: bytes) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    noise = torch.from_numpy(gaussian(tensor.numel(), seed + name.encode()))
    return (tensor.double() + sigma * noise.reshape(tensor.shape)).to(tensor.dtype)
