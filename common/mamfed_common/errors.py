"""The errors that mamfed raises on purpose, with the exit code of each.

    MamfedError           1  anything that has no code of its own
    |-- PlanError         3  the training plan cannot be used
    |-- DataError         4  a site's data cannot be used at all (a bad row is only rejected)
    |-- CheckpointError   5  a checkpoint is damaged or of another network
    |-- WeightsError      6  weights do not fit the network that the plan describes
    |-- RunError          7  the federated run failed, e.g. its quorum was not met
    |   `-- JobError      7  a job of a site's cluster brought no result
    |-- OutputError       8  a result cannot be written where it was asked for
    |-- SetupError        9  keys, certificates, site.yaml or server.yaml cannot be used
    |-- LinkError        10  the server cannot be reached, or does not take this site in
    |-- AuditError       11  the audit log has been changed or cut
    `-- DoubtError       12  something was excluded until a person has reviewed it

Exit code 0 means success and 2 a mistake on the command line (typer's own). A message is one line:
what was found, what was expected, what to do. It never contains a patient's identity.
"""

from __future__ import annotations


class MamfedError(Exception):
    """Base of all errors that a command reports in one line instead of a traceback."""

    exit_code = 1


class PlanError(MamfedError):
    """The training plan is missing, malformed or asks for something impossible."""

    exit_code = 3


class DataError(MamfedError):
    """A site's data cannot be used: there is no folder, no table or no usable case."""

    exit_code = 4


class CheckpointError(MamfedError):
    """A checkpoint is missing, damaged or belongs to another network."""

    exit_code = 5


class WeightsError(MamfedError):
    """Weights differ from the network's in name, shape or dtype, or are not finite."""

    exit_code = 6


class RunError(MamfedError):
    """The federated run could not continue."""

    exit_code = 7


class JobError(RunError):
    """A job of a site's cluster was lost, refused, cancelled or too late."""


class OutputError(MamfedError):
    """A result cannot be written where the user asked for it."""

    exit_code = 8


class SetupError(MamfedError):
    """Keys, certificates, a request, a welcome, ``site.yaml`` or ``server.yaml`` cannot be used."""

    exit_code = 9


class LinkError(MamfedError):
    """The server cannot be reached, or refuses this site."""

    exit_code = 10


class AuditError(MamfedError):
    """The audit log was altered: a line is missing, added or changed."""

    exit_code = 11


class DoubtError(MamfedError):
    """The work is done except for items that a person must review first."""

    exit_code = 12
