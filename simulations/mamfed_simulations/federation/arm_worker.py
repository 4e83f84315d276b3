"""Worker process: run with ``python -m``, train the one arm described on stdin (``arm_process``).

Its stdout carries reports only; all other output goes to stderr. It exits as soon as the process
that started it ends.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from mamfed_common.errors import MamfedError, OutputError
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.runtime.terminal import set_environment

if TYPE_CHECKING:  # load torch only after the task has been read
    from mamfed_server.run_folder.round_record import RoundRecord
    from mamfed_simulations.federation.arm_messages import Report

REPORT_SECONDS = 0.2
"""Minimum interval between step reports; one line per step would be too slow."""


class Reporter:
    """Write reports to the pipe that was stdout."""

    def __init__(self, descriptor: int) -> None:
        """Take ownership of a file descriptor."""
        self._descriptor = descriptor
        self._steps = 0
        self._last_report = monotonic()

    def on_step(self) -> None:
        """Count a training step."""
        self._steps += 1
        if monotonic() - self._last_report >= REPORT_SECONDS:
            self._report_steps()

    def on_round(self, record: RoundRecord) -> None:
        """Report a finished round."""
        from mamfed_simulations.federation.arm_messages import Report

        self._report_steps()
        self._write(Report(round=record))

    def failed(self, error: MamfedError) -> None:
        """Report why the arm has no result."""
        from mamfed_common import errors
        from mamfed_simulations.federation.arm_messages import Failure, Report

        kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        failure = Failure(kind=next(kinds).__name__, message=str(error))
        self._write(Report(failure=failure))

    def _report_steps(self) -> None:
        from mamfed_simulations.federation.arm_messages import Report

        self._last_report = monotonic()
        if self._steps:
            self._write(Report(steps=self._steps))
        self._steps = 0

    def _write(self, report: Report) -> None:
        line = report.model_dump_json(exclude_defaults=True).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


def carry_out(text: bytes, reporter: Reporter) -> None:
    """Train the arm of a serialised task.

    Raises:
        MamfedError: The arm failed.
    """
    from mamfed_simulations.federation.arm_messages import ArmTask
    from mamfed_simulations.federation.arm_pool import train_here

    task = ArmTask.model_validate_json(text)
    job = replace(task.arm.job, on_round=reporter.on_round)
    train_here(replace(task.arm, job=job), task.machine, reporter.on_step)


def main() -> None:
    """Carry out the task on stdin."""
    hold_lifeline()
    set_environment()
    reporter = Reporter(os.dup(1))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        try:
            carry_out(sys.stdin.buffer.read(), reporter)
        except OSError as error:  # a full disk, a folder that cannot be written
            raise OutputError(os_error_line(error)) from error
    except MamfedError as error:
        reporter.failed(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
