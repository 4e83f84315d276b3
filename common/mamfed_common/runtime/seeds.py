"""Named seeds: every random choice has a name, so that it can be repeated by itself."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed for one named purpose, e.g. ``derive_seed(7, "order", "site-a", 3)``.

    Args:
        seed: The plan's seed.
        names: The purpose of the seed, from general to specific.

    Returns:
        An integer in [0, 2**63), the same on every platform and Python version.
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for one named purpose (see :func:`derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *names))
