"""What starts jobs, looks at them and cancels them: Slurm, or a command of the site."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from mamfed_client.cluster.documents import Submission
from mamfed_client.cluster.job_folder import JobFolder
from mamfed_client.site.executor_settings import ExecutorSettings

Phase = Literal["queued", "running", "ended", "unknown"]


class JobState(NamedTuple):
    """The state of a job.

    Attributes:
        phase: Whether it waits, runs or has ended; ``unknown``: the scheduler does not answer.
        words: A description for people, such as ``Slurm job 12 waits (Resources)``.
    """

    phase: Phase
    words: str


class Queue(Protocol):
    """What starts jobs."""

    def submit(self, folder: JobFolder, submission: Submission) -> str:
        """Start the job of a folder; return its number.

        Raises:
            SetupError: There is no such scheduler or command here.
            JobError: It refuses the job.
        """

    def state(self, folder: JobFolder, submission: Submission) -> JobState:
        """Return the state of a job, even if its number was never learned."""

    def cancel(self, folder: JobFolder, submission: Submission) -> None:
        """Cancel a job; do nothing if it has ended."""


def queue_of(settings: ExecutorSettings) -> Queue:
    """Return what starts the jobs of these settings."""
    if settings.kind == "slurm":
        from mamfed_client.cluster.slurm import SlurmQueue

        return SlurmQueue(settings)
    from mamfed_client.cluster.command import CommandQueue

    return CommandQueue(settings)
