"""Waiting behaviour of torch's threads."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Makes OpenMP threads sleep at a barrier instead of spinning."""


def wait_without_spinning() -> None:
    """Let OpenMP threads sleep while they wait, in this process and its children.

    Call this before importing torch: libgomp reads its settings once, when it is loaded. The user's
    own settings take precedence. With two other busy processes, this cuts a training step at
    512 x 512 to a tenth of the time (``docs/decisions/0031-arms-side-by-side.md``).
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
