"""``python -m`` this module: trains one arm, as stdin orders, see ``arm_pool.py``.

Its stdout is for reports alone: whatever else is printed goes to stderr. It ends at once where the
process that started it does.
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
from mamfed_common.runtime.process_supervisor import hold_lifeline
from mamfed_common.runtime.terminal import set_environment

if TYPE_CHECKING:  # torch is loaded once the order has been read
    from mamfed_server.run_folder.folder import RoundRecord
    from mamfed_simulations.federation.arm_pool import Report

REPORT_SECONDS = 0.2
"""How often steps are told: a line a step would cost more than the bar is worth."""


class Reporter:
    """Writes reports to the pipe that was stdout."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self._descriptor = descriptor
        self._steps = 0
        self._told = monotonic()

    def on_step(self) -> None:
        """Count a training step."""
        self._steps += 1
        if monotonic() - self._told >= REPORT_SECONDS:
            self._tell_steps()

    def on_round(self, record: RoundRecord) -> None:
        """Tell of a round that ended."""
        from mamfed_simulations.federation.arm_pool import Report

        self._tell_steps()
        self._write(Report(round=record))

    def failed(self, error: MamfedError) -> None:
        """Tell why the arm has no result."""
        from mamfed_common import errors
        from mamfed_simulations.federation.arm_pool import Failure, Report

        kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        failure = Failure(kind=next(kinds).__name__, message=str(error))
        self._write(Report(failure=failure))

    def _tell_steps(self) -> None:
        from mamfed_simulations.federation.arm_pool import Report

        self._told = monotonic()
        if self._steps:
            self._write(Report(steps=self._steps))
        self._steps = 0

    def _write(self, report: Report) -> None:
        line = report.model_dump_json(exclude_defaults=True).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


def carry_out(text: bytes, reporter: Reporter) -> None:
    """Train the arm that an order names.

    Raises:
        MamfedError: It has no result.
    """
    from mamfed_simulations.federation.arm_pool import ArmTask, train_here

    order = ArmTask.model_validate_json(text)
    job = replace(order.arm.job, on_round=reporter.on_round)
    train_here(replace(order.arm, job=job), order.machine, reporter.on_step)


def main() -> None:
    """Carry out the order on stdin."""
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
