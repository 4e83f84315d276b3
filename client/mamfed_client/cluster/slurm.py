"""Jobs of Slurm, submitted by submitit.

submitit's own way is a pickled function that the job unpickles. Here it writes and submits the
batch script only: ``_submit_command`` takes a command line (decision 0066), so nothing is pickled.
Slurm is asked by the job's name, which exists before the job: a node that was killed between the
submission and its note finds the job again.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import warnings
from typing import Any

from mamfed_client.cluster.documents import Submission
from mamfed_client.cluster.job_folder import JobFolder
from mamfed_client.cluster.queues import JobState
from mamfed_client.site.executor_settings import ExecutorSettings
from mamfed_common.errors import JobError, SetupError
from mamfed_common.runtime import threads
from mamfed_common.runtime.child_processes import ask_process, last_line, module_command
from mamfed_common.runtime.optional_packages import check_installed

logger = logging.getLogger(__name__)

ASK_SECONDS = 30.0
"""Time that one of Slurm's commands may take."""
ANY_SET = "".join(f"${{{name}+x}}" for name in threads.WAITING)
QUIET = f'[ "{ANY_SET}" ] || export ' + " ".join(f"{k}={v}" for k, v in threads.WAITING.items())
"""Has threads spin only briefly, as in every other process of a site; a user's setting wins."""
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
)
AT_WORK = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
ENDINGS = {
    "TIMEOUT": "was cut by Slurm after executor.minutes; raise it, or let the round be asked again",
    "PREEMPTED": "had to make way for another job",
    "OUT_OF_MEMORY": "needed more memory than executor.memory",
    "NODE_FAIL": "was lost with its machine",
    "CANCELLED": "was cancelled",
    "FAILED": "failed",
    "COMPLETED": "ended",
}
"""How a job ended, by Slurm's state; others are named as they are."""


class SlurmQueue:
    """Slurm, as this machine's sbatch, squeue and scancel reach it."""

    def __init__(self, settings: ExecutorSettings) -> None:
        """Use these settings for every job."""
        self._settings = settings

    def submit(self, folder: JobFolder, submission: Submission) -> str:
        """Submit the job of a folder; return Slurm's number.

        Raises:
            SetupError: submitit or Slurm is not installed, or an option is not sbatch's.
            JobError: Slurm refuses the job.
        """
        check_installed("cluster", "submitit")
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = self._executor(folder, submission)
        program = self._settings.program or module_command("mamfed_client.cluster.job")
        try:
            job = executor._submit_command(shlex.join([*program, str(folder.path)]))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise JobError(f"Slurm refuses the job: {last_line(str(error))}") from None
        return str(job.job_id)

    def state(self, folder: JobFolder, submission: Submission) -> JobState:
        """Return the state of a job."""
        try:
            rows = _ask(
                "squeue", "-h", "--states=all", f"--name={submission.name}", "-o", "%i|%T|%r"
            )
        except JobError as error:
            return JobState("unknown", f"Slurm does not answer ({error})")
        states = [_state_of(row) for row in rows.splitlines() if row.count("|") == 2]
        live = [state for state in states if state.phase != "ended"]
        if not states:
            name = f"Slurm job {submission.job}" if submission.job else "the job"
            return JobState("ended", f"{name} is no longer known to Slurm")
        return (live or states)[-1]

    def cancel(self, folder: JobFolder, submission: Submission) -> None:
        """Cancel a job by its name, which also finds one whose number was never learned."""
        try:
            _ask("scancel", f"--name={submission.name}")
        except JobError as error:
            logger.warning("cannot cancel job %s: %s", submission.job or submission.name, error)

    def _executor(self, folder: JobFolder, submission: Submission) -> Any:
        from submitit import SlurmExecutor

        try:
            executor = SlurmExecutor(folder.logs)
        except RuntimeError:
            raise SetupError(
                "executor: slurm: found no srun here, expected Slurm's commands on this machine"
            ) from None
        own = {"export": "NIL", "requeue": True} | self._settings.parameters
        values = {key: value for key, value in own.items() if value is not False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor.update_parameters(
                job_name=submission.name,
                time=self._settings.minutes,
                cpus_per_task=self._settings.cpus,
                mem=self._settings.memory,
                use_srun=False,
                stderr_to_stdout=True,
                setup=[*self._settings.setup, QUIET],
                additional_parameters=values,
                **_where_set(
                    partition=self._settings.partition, gpus_per_node=self._settings.gpus or None
                ),
            )
        return executor


def _where_set(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _state_of(row: str) -> JobState:
    number, state, reason = row.split("|")
    because = f" ({reason})" if reason not in ("", "None") else ""
    if state in WAITING:
        return JobState("queued", f"Slurm job {number} waits{because}")
    if state in AT_WORK:
        return JobState("running", f"Slurm job {number} is {state.lower()}")
    words = ENDINGS.get(state, f"ended as {state}")
    return JobState("ended", f"Slurm job {number} {words}{because}")


def _ask(*argv: str) -> str:
    """Return what one of Slurm's commands prints.

    Raises:
        JobError: It is missing, fails or does not end.
    """
    try:
        done = ask_process(argv, ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobError(f"{argv[0]}: {type(error).__name__}") from None
    if done.returncode:
        raise JobError(last_line(done.stderr) or f"{argv[0]} ended with code {done.returncode}")
    return done.stdout
