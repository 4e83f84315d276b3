"""What a run calls at each round and at its end: nothing here raises, and nothing waits long."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mamfed_common.runtime.child_processes import module_command, start_process
from mamfed_common.runtime.optional_packages import install_command
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.trackers.tensorboard import EventFiles

logger = logging.getLogger(__name__)

TRACKING_URI = "MLFLOW_TRACKING_URI"
"""MLflow's own environment variable; where it is set, the curves of every run are sent there."""
SENDER = "mamfed_server.trackers.mlflow_sender"
LAST_SECONDS = 20.0
"""Longest time that the end of a run waits for MLflow."""


class Trackers:
    """The trackers of one run."""

    def __init__(self, folder: Path) -> None:
        """Track nothing before the first round."""
        self._folder = folder
        self._has_begun = False
        self._files: EventFiles | None = None
        self._sender: subprocess.Popen[bytes] | None = None

    def _begin(self) -> None:
        """Take up the rounds that the folder has, those of earlier processes too."""
        self._has_begun = True

        def files() -> None:
            self._files = EventFiles(self._folder)

        def sender() -> None:
            self._sender = _start_sender(self._folder)

        _safely("no TensorBoard files", files)
        if os.environ.get(TRACKING_URI):
            _safely("MLflow is not told of the rounds", sender)

    def round(self, record: RoundRecord) -> None:
        """Add a round that is on disk."""
        if not self._has_begun:
            self._begin()
        elif (files := self._files) is not None:
            _safely("a round is missing in the TensorBoard files", lambda: files.add(record))

    def end(self) -> None:
        """Write what is left; wait a bounded time for MLflow."""
        if (files := self._files) is not None:
            _safely("the TensorBoard files lack their end", files.close)
        if (sender := self._sender) is not None:
            _safely("MLflow lacks the last rounds", lambda: _end_sender(sender))
        self._files = self._sender = None


def _start_sender(folder: Path) -> subprocess.Popen[bytes] | None:
    if find_spec("mlflow") is None:
        logger.warning(
            "%s is set, but MLflow is missing: %s", TRACKING_URI, install_command("mlflow")
        )
        return None
    argv = module_command(SENDER, str(folder.absolute()))
    return start_process(argv, env=os.environ, stdin=subprocess.PIPE, stderr=None)


def _end_sender(sender: subprocess.Popen[bytes]) -> None:
    assert sender.stdin is not None
    sender.stdin.close()
    try:
        sender.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
        logger.warning("MLflow lacks the last rounds: it took more than %g seconds", LAST_SECONDS)


def _safely(what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # a tracker must not end a run
        logger.warning("%s: %s: %s", what, type(error).__name__, str(error)[:200])
