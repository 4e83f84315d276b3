"""Jobs that a command of the site starts, such as ``ssh gpu1 mamfed-client job {folder}``.

The command may run as long as the job does, or submit it to a scheduler of its own and end with
code 0. Either way the job is alive as long as its folder shows signs of life, so it is found again
after the node was restarted.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from mamfed_client.cluster.documents import Progress, Submission
from mamfed_client.cluster.job_folder import JobFolder
from mamfed_client.cluster.queues import JobState
from mamfed_client.site.executor_settings import FOLDER, ExecutorSettings
from mamfed_common.errors import JobError, SetupError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.child_processes import how_it_ended, start_process
from mamfed_common.runtime.files import refusal_words

CANCEL_SECONDS = 10.0
"""Time that a cancelled job has to end by itself, before its command is killed."""
PRINTED = "command.log"


class CommandQueue:
    """The jobs of one command line."""

    def __init__(self, settings: ExecutorSettings) -> None:
        """Use these settings for every job."""
        self._settings = settings
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._signs: dict[str, tuple[Progress | None, float]] = {}

    def submit(self, folder: JobFolder, submission: Submission) -> str:
        """Start the command, in its own session; return its process id.

        Raises:
            SetupError: There is no such program.
            JobError: It cannot be started.
        """
        argv = [part.replace(FOLDER, str(folder.path)) for part in self._settings.command]
        program = shutil.which(argv[0])
        if program is None:
            raise SetupError(f"executor.command: found no program {argv[0]!r} on this machine")
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(folder.logs / PRINTED, flags, 0o600), "ab") as log:
                process = start_process(
                    [program, *argv[1:]], env=os.environ, stdout=log, stderr=log
                )
        except OSError as error:
            raise JobError(f"{argv[0]} cannot be started: {refusal_words(error)}") from None
        self._started[submission.name] = process
        return str(process.pid)

    def state(self, folder: JobFolder, submission: Submission) -> JobState:
        """Return the state of a job, by its command and its signs of life."""
        words = f"the job of process {submission.job or '?'}"
        progress, silent_seconds = self._sign(folder, submission)
        alive = self._is_alive(folder, submission)
        process = self._started.get(submission.name)
        if process is not None and (code := process.poll()):
            return JobState("ended", f"{words}: its command {how_it_ended(code)}")
        if not alive and silent_seconds > 60 * self._settings.silent_minutes:
            return JobState("ended", f"{words} has shown no sign of life for too long")
        if progress is None:
            return JobState("queued", f"{words} has not begun yet")
        return JobState("running", f"{words} is at work on {progress.job.partition(' ')[0]}")

    def cancel(self, folder: JobFolder, submission: Submission) -> None:
        """Ask the job to end, and kill a command that does not."""
        deadline = monotonic() + CANCEL_SECONDS
        while self._is_alive(folder, submission) and monotonic() < deadline:
            sleep(0.1)
        if self._is_alive(folder, submission):
            with suppress(OSError, ValueError):
                os.killpg(int(submission.job), signal.SIGTERM)

    def _sign(self, folder: JobFolder, submission: Submission) -> tuple[Progress | None, float]:
        """Return the last sign of life, and for how many seconds it has not changed."""
        progress = folder.read(Progress)
        before = self._signs.get(submission.name)
        if before is None or before[0] != progress:
            before = self._signs[submission.name] = (progress, monotonic())
        return progress, monotonic() - before[1]

    def _is_alive(self, folder: JobFolder, submission: Submission) -> bool:
        """Return whether the command runs; one of an earlier node is recognised by its folder."""
        if process := self._started.get(submission.name):
            return process.poll() is None
        if submission.host != socket.gethostname() or not submission.job.isdecimal():
            return False
        try:
            line = read_bytes(Path(f"/proc/{submission.job}/cmdline"), DOCUMENT_BYTES)
        except OSError:
            return False
        return os.fsencode(folder.path) in line
