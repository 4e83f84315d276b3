"""The engines of a simulation; apart from what runs them, so that ``--help`` imports nothing."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """Where simulated sites run."""

    PROCESS = "process"
    RAY = "ray"
