"""Messages between a process that trains arms and its children (``arm_process``, ``arm_worker``).

A child reads one :class:`ArmTask` from its stdin and writes one :class:`Report` per line to its
stdout.
"""

from __future__ import annotations

from dataclasses import fields

from mamfed_common import errors
from mamfed_common.config import Config
from mamfed_common.errors import MamfedError
from mamfed_server.run.job import Job
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_simulations.federation.arms import Arm
from mamfed_simulations.federation.hardware import ArmHardware

CALLABLES = frozenset(field.name for field in fields(Job) if "Callable" in str(field.type))
"""Fields of a job that cannot be sent to another process."""


class ArmTask(Config):
    """The task of a child, sent through a pipe."""

    arm: Arm
    machine: ArmHardware

    def to_json(self) -> str:
        """Serialise the task without callables, which only this process can run."""
        return self.model_dump_json(exclude={"arm": {"job": set(CALLABLES)}})


class Failure(Config):
    """An error that ended an arm: its class in ``mamfed_common.errors`` and its message."""

    kind: str
    message: str

    def error(self) -> MamfedError:
        """Return the error as raised in the child."""
        kind: type[MamfedError] = getattr(errors, self.kind)
        return kind(self.message)


class Report(Config):
    """One line from a child: training steps since the last line, a finished round, or a failure."""

    steps: int = 0
    round: RoundRecord | None = None
    failure: Failure | None = None
