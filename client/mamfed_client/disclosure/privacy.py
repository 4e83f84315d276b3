"""Clipping and noise: what an update loses before it leaves, where the site's policy asks for it.

The clip bounds how far one site can move the average; with noise this is the Gaussian mechanism at
the level of a site (McMahan et al. 2018, arXiv:1710.06963, section 2). Noise is computed in
floating point, so it is no formal guarantee (Mironov 2012, doi:10.1145/2382196.2382264).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from secrets import token_bytes

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mamfed_client.site.policy import Privacy
from mamfed_common.errors import SetupError, WeightsError
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import Wire
from mamfed_common.protocol.quantization import update_received, update_to_send
from mamfed_common.runtime.files import private_directory, write_atomic

SECRET_BYTES = 32
ROUNDING = 1e-6
"""By how much an update first shrinks again where rounding leaves it longer than the clip."""


def protect(
    state: Mapping[str, Tensor], start: Mapping[str, Tensor], privacy: Privacy, secret: bytes
) -> State:
    """Clip an update and add noise, as the policy says; else return the very tensors.

    Args:
        state: The trained weights.
        start: The weights that the round started from.
        privacy: What to do.
        secret: Random bytes of this site that nobody else knows. The same update gets the same
            noise from them, so that asking for it again does not average the noise away.

    Raises:
        WeightsError: The update is to be clipped and holds NaN or infinity.
    """
    if privacy.clip_norm is None:
        return dict(state)
    clipped = clip(state, start, privacy.clip_norm)
    if not privacy.noise_multiplier:
        return clipped
    sigma = privacy.noise_multiplier * privacy.clip_norm
    # Of these too: the same noise in two strengths could be solved for.
    strength = f"{privacy.clip_norm!r} {privacy.noise_multiplier!r} ".encode()
    seed = secret + bytes.fromhex(state_sha256(state) + state_sha256(start)) + strength
    return {name: _with_noise(name, clipped[name], sigma, seed) for name in clipped}


def arrays_to_send(
    state: Mapping[str, Tensor], start: Mapping[str, Tensor], wire: Wire, privacy: Privacy
) -> State:
    """Return the arrays that stand for a protected update on the wire.

    Rounding may leave a clipped update longer than its clip: it is then shortened once more. Noise
    has done that on purpose.
    """
    sent, shrink = update_to_send(state, start, wire), ROUNDING
    if privacy.clip_norm is None or privacy.noise_multiplier:
        return sent
    received = update_received(sent, start, wire)
    while update_norm(received, start) > privacy.clip_norm:
        shorter = clip(received, start, privacy.clip_norm * (1 - shrink))
        sent, shrink = update_to_send(shorter, start, wire), min(2 * shrink, 0.5)
        received = update_received(sent, start, wire)
    return sent


def clip(state: Mapping[str, Tensor], start: Mapping[str, Tensor], norm: float) -> State:
    """Shorten an update, as one vector over all floating tensors, to a norm; a short one stays.

    Raises:
        WeightsError: It holds NaN or infinity.
    """
    length = update_norm(state, start)
    if not math.isfinite(length):
        raise WeightsError("the update holds NaN or infinity, so it cannot be clipped")
    clipped, factor, shrink = dict(state), norm / length if length else 1.0, ROUNDING
    while update_norm(clipped, start) > norm:
        clipped = {name: _moved(start[name], state[name], factor) for name in state}
        factor, shrink = factor * (1 - shrink), min(2 * shrink, 0.5)
    return clipped


def update_norm(state: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of an update, in float64, over its floating tensors."""
    squares = (
        float((tensor.double() - start[name].double()).square().sum())
        for name, tensor in state.items()
        if tensor.is_floating_point()
    )
    return math.sqrt(sum(squares))


def gaussian(count: int, seed: bytes) -> npt.NDArray[np.float64]:
    """Draw standard normal numbers from a seed: Box-Muller over the stream of SHAKE-256."""
    pairs = (count + 1) // 2
    stream = hashlib.shake_256(seed).digest(16 * pairs)
    uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2 * np.log1p(-uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def read_secret(path: Path) -> bytes:
    """Read the secret that noise is drawn from; the first call makes it (0600).

    Raises:
        SetupError: The file is not such a secret.
    """
    if not path.exists():
        private_directory(path.parent)
        write_atomic(path, token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise SetupError(
            f"{path}: found {len(secret)} bytes, expected {SECRET_BYTES}; restore it from backup, "
            "or remove it: updates asked for again then get other noise"
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
