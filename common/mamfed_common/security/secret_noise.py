"""Random numbers that only the holder of a secret can repeat.

torch's own generators take a seed of 32 bits on a CPU, which anybody can try out; these numbers
come from the SHAKE-256 stream of a seed of any length.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def uniform(count: int, seed: bytes) -> npt.NDArray[np.float64]:
    """Draw numbers, equally likely in 0..1 without 1, of 53 bits each."""
    stream = hashlib.shake_256(seed).digest(8 * count)
    return (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def gaussian(count: int, seed: bytes) -> npt.NDArray[np.float64]:
    """Draw standard normal numbers by Box-Muller.

    They are floating-point numbers, so there is no formal guarantee (Mironov 2012,
    doi:10.1145/2382196.2382264).
    """
    pairs = (count + 1) // 2
    drawn = uniform(2 * pairs, seed)
    radius = np.sqrt(-2 * np.log1p(-drawn[:pairs]))
    angle = 2 * np.pi * drawn[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
