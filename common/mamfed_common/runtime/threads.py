"""How torch's threads wait for each other."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""OpenMP's threads sleep at a barrier, where they would spin for as long as they are let."""


def wait_without_spinning() -> None:
    """Let threads sleep while they wait, in this process and in those that it starts.

    To be called before torch is imported: libgomp reads its settings once, when it is loaded. What
    the user has set stands. Beside two busy processes a training step at 512 x 512 takes a tenth of
    the time so (``docs/decisions/0031-arms-side-by-side.md``).
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
