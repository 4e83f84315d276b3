"""The running processes of a playground: each is a real command in a session of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from time import monotonic

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.child_processes import module_command, start_process
from mamfed_common.runtime.files import private_directory
from mamfed_common.runtime.lifeline import LIFELINE
from mamfed_common.web.serving import ADDRESS_FILE

CHILD = "mamfed_simulations.playground.child"
GRACEFUL_SECONDS = 30.0
POLL_SECONDS = 0.1


class Processes:
    """Started commands, by name; what they say goes to ``NAME.log``."""

    def __init__(self, logs: Path, environment: Mapping[str, str], lifeline: int) -> None:
        """Start nothing yet.

        Args:
            logs: Folder of the logs.
            environment: Variables that each process gets besides this one's.
            lifeline: Closes when this process ends, see ``lifeline.py``.
        """
        self._logs = private_directory(logs)
        self._environment = {**os.environ, **environment, LIFELINE: str(lifeline)}
        self._lifeline = lifeline
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self._logs / f"{name}.log"

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a command."""
        with self.log(name).open("ab") as log:
            self.running[name] = start_process(
                module_command(CHILD, *command),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self._lifeline],
            )

    def address(self, name: str, home: Path, seconds: float, stopping: Event) -> str:
        """Wait until a page can be opened; return its address, empty if stopped before.

        Args:
            name: The page's process.
            home: The home that it shows; the address stands in ``dashboard.url``.
            seconds: How long to wait.
            stopping: Set when everything is to end.

        Raises:
            SetupError: The process ended, or the address did not come in time.
        """
        deadline = monotonic() + seconds
        while not stopping.wait(POLL_SECONDS):
            with contextlib.suppress(FileNotFoundError):
                return read_bytes(home / ADDRESS_FILE, KEY_BYTES).decode().strip()
            ended = self.running[name].poll() is not None
            if ended or monotonic() > deadline:
                how = "ended" if ended else "gave no address"
                raise SetupError(f"the page of {name} {how}; see {self.log(name)}")
        return ""

    def ended(self) -> dict[str, int]:
        """Return the exit codes of the processes that have ended."""
        codes = {name: process.poll() for name, process in self.running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def forget(self, name: str) -> None:
        """Forget a process that has ended."""
        del self.running[name]

    def close(self) -> None:
        """End everything that was started, and wait for it."""
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        deadline = monotonic() + GRACEFUL_SECONDS
        for process in self.running.values():
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()
