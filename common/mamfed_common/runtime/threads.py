"""Waiting behaviour of torch's threads."""

from __future__ import annotations

import os
from collections.abc import Mapping

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Lets a thread at a barrier spin for about 0.06 ms, and then sleep.

GNU's OpenMP, torch's on Linux, takes the count; other libraries know only the policy: sleep at
once.
"""


def waiting_settings(surroundings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to an environment: none if its owner has set either."""
    return {} if WAITING.keys() & surroundings.keys() else dict(WAITING)


def spin_briefly() -> None:
    """Let OpenMP threads sleep if they wait for long, in this process and its children.

    Call this before importing torch: libgomp reads its settings once, when it is loaded. The user's
    own settings take precedence. On a quiet machine, a step at 1536 x 1536 takes no longer than
    with torch's endless spinning, and one at 128 x 128 a fifth longer; beside two other busy
    processes, both take a fraction of that (``docs/decisions/0079-threads-spin-briefly.md``).
    """
    os.environ.update(waiting_settings(os.environ))
