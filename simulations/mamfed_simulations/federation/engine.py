"""The engines of a simulation, in a module of their own to keep ``--help`` fast."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """Where simulated sites run."""

    PROCESS = "process"
    RAY = "ray"
