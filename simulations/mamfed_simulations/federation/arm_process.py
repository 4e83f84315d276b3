"""The process of one arm: ``python -m mamfed_simulations.federation.arm_worker``.

It reads its task from stdin, writes reports to stdout (``arm_messages``), and exits with this
process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mamfed_common.errors import MamfedError, RunError
from mamfed_common.plan import Stage
from mamfed_common.runtime.child_processes import how_it_ended, module_command, start_process
from mamfed_common.runtime.lifeline import LIFELINE
from mamfed_common.runtime.places import temporary_folder
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_simulations.federation.arm_messages import ArmTask, Report
from mamfed_simulations.federation.arms import Arm
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.reporting.progress import Progress

MODULE = "mamfed_simulations.federation.arm_worker"
LOG = "worker.log"
"""File in an arm's run folder with the process's stderr, if there was any."""
LOG_BYTES = 2**20
SHOWN_LINES = 20


@dataclass
class ArmTraining:
    """An arm to train, and its error if it has failed."""

    arm: Arm
    title: str
    machine: ArmHardware
    progress: Progress
    steps: dict[Stage, int]
    error: MamfedError | None = None

    @property
    def length(self) -> int:
        """Approximate number of images that the network sees during the whole training."""
        plan = self.arm.job.plan
        return sum(plan.stage(s).rounds * self.steps[s] * plan.stage(s).batch_size for s in Stage)

    def show(self) -> tuple[Callable[[], None], Callable[[RoundRecord], None]]:
        """Add its progress bar; return the callbacks for each step and each round."""
        on_step, show_round = self.progress.start(self.title, self.arm.job.plan, self.steps)
        job_on_round = self.arm.job.on_round

        def on_round(record: RoundRecord) -> None:
            show_round(record)
            if job_on_round:
                job_on_round(record)

        return on_step, on_round


class ArmProcess:
    """The process of one arm.

    Attributes:
        task: The arm.
        reports: The process's stdout.
    """

    def __init__(self, task: ArmTraining, lifeline: int) -> None:
        """Start the process, show its bar and send its task."""
        self.task = task
        self._log = tempfile.TemporaryFile(dir=temporary_folder())
        self._process = start_process(
            module_command(MODULE),
            folder=Path.cwd(),  # relative paths in the task mean this process's folder
            env={**os.environ, LIFELINE: str(lifeline)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            pass_fds=(lifeline,),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.reports: IO[bytes] = self._process.stdout
        self._unread = b""
        self._on_step, self._on_round = task.show()
        message = ArmTask(arm=task.arm, machine=task.machine).to_json()
        with suppress(BrokenPipeError), self._process.stdin as pipe:  # end() reports the cause
            pipe.write(message.encode())

    def read(self) -> bool:
        """Handle the available reports; return False at the end of the output."""
        data = os.read(self.reports.fileno(), 1 << 16)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._handle(Report.model_validate_json(line))
        return bool(data)

    def end(self) -> None:
        """Wait for the process to exit, save its log, and report its error, if any."""
        code = self._process.wait()
        log = self._read_log()
        if code and self.task.error is None:
            self.task.error = RunError(f"{self.task.title}: its process {_how(code)}")
        if self.task.error:
            for line in log.splitlines()[-SHOWN_LINES:]:
                self.task.progress.say(f"{self.task.title}: {line}")
        self._close()

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _handle(self, report: Report) -> None:
        for _ in range(report.steps):
            self._on_step()
        if report.round:
            self._on_round(report.round)
        if report.failure:
            self.task.error = report.failure.error()

    def _read_log(self) -> str:
        """Return the last ``LOG_BYTES`` of its stderr, and append them to the run folder's log."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LOG_BYTES))
        content = self._log.read()
        folder = RunFolder(self.task.arm.job.folder)
        if content and folder.holds_run():
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(folder.path / LOG, flags, 0o600), "ab") as file:
                file.write(content)
        return content.decode(errors="replace")

    def _close(self) -> None:
        self.reports.close()
        self._log.close()


def _how(code: int) -> str:
    """Describe how a process ended that reported no error, and what to do."""
    advice = "use fewer --workers" if code == -signal.SIGKILL else "its last lines are above"
    return f"{how_it_ended(code)}; {advice}"
