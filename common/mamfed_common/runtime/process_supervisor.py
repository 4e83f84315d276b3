"""Keep child processes running: start, watch, restart and stop them.

A supervisor runs for weeks and stays small, so this module imports neither Flower nor torch.
Children call ``lifeline.hold_lifeline``, so that they exit even if SIGKILL ends their supervisor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

from mamfed_common.runtime.child_log import ChildLog
from mamfed_common.runtime.child_processes import how_it_ended, start_process
from mamfed_common.runtime.files import os_error_line, private_directory, write_atomic
from mamfed_common.runtime.lifeline import LIFELINE, open_lifeline
from mamfed_common.runtime.terminal import ENVIRONMENT
from mamfed_common.runtime.threads import waiting_settings

NOT_STARTED = 127
"""Exit code reported for a child that could not be started, as in a shell."""

LOOPBACK = ("127.0.0.1", "localhost")
POLL_SECONDS = 0.1
GRACEFUL_SECONDS = 20.0
LONGEST_DELAY_SECONDS = 30.0
GOOD_LIFE_SECONDS = 60.0
LAST_WORDS_SECONDS = 1.0
"""Time for the last lines of an exited child to reach its log."""


@dataclass(frozen=True)
class Child:
    """A process to keep running.

    Attributes:
        name: Its name in messages.
        argv: Its command line.
        log_path: Log of its stdout and stderr, appended to (0600, three files of 10 MiB).
        env: Its complete environment, see :func:`child_environment`.
        folder: Its working folder.
        aside: Whether nothing depends on it: its end neither restarts nor ends the others.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(repr=False)
    folder: Path | None = None
    aside: bool = False


class Change(NamedTuple):
    """An event in the life of a child.

    Attributes:
        name: Its name.
        event: ``started``, ``ended`` by itself, or ``stopped`` by the supervisor.
        pid: Its process id; 0 if it could not be started.
        code: Its exit code, or minus the number of the signal that ended it; None while it runs.
        delay_seconds: Time until it is restarted; None if it is not.
        how: How it ended, in words that follow its name; empty while it runs.
    """

    name: str
    event: Literal["started", "ended", "stopped"]
    pid: int
    code: int | None = None
    delay_seconds: float | None = None
    how: str = ""


OnChange = Callable[[Change], None]


def child_environment(flower_home: Path) -> dict[str, str]:
    """Return this process's environment, adapted for a child.

    It has no telemetry, no update checks, no threads that spin for long and no proxy between
    processes of this machine, and gives Flower its own folder instead of the user's home. Flower
    draws an id for telemetry even if that is off, and keeps it there: a file that names nobody is
    put in its place, so that a service which root starts leaves none of root's files in a user's
    home.

    Raises:
        OpenFolderError: Every user may replace files in the folder.
        OSError: It cannot be created or written.
    """
    source = private_directory(flower_home) / "source"
    if not source.exists():
        write_atomic(source, "off")
    environment = {
        **waiting_settings(os.environ),
        **os.environ,
        **ENVIRONMENT,
        "FLWR_HOME": str(flower_home),
    }
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in environment.get(name, "").split(",") if host]
        environment[name] = ",".join([*hosts, *(h for h in LOOPBACK if h not in hosts)])
    return environment


def supervise(
    children: Sequence[Child],
    *,
    together: bool,
    stopping: threading.Event,
    final_codes: Iterable[int] = (),
    delays: Mapping[int, float] | None = None,
    on_change: OnChange = lambda change: None,
) -> int:
    """Keep children running until ``stopping`` is set; return the exit code for this process.

    A child that exits is restarted after 1, 2, 4 ... 30 s; the delay is reset to 1 s once it has
    run for a minute. SIGTERM and SIGINT set ``stopping`` if this runs in the main thread. Children
    are stopped with SIGTERM, and killed after 20 s.

    Args:
        children: Processes to run.
        together: Whether all are stopped and restarted when one of them exits, except those aside.
        stopping: Event that ends everything when set.
        final_codes: Exit codes of a child, not aside, that end everything.
        delays: Restart delays in seconds after certain exit codes, instead of the default.
        on_change: Called from this thread with every change.

    Returns:
        0 when stopped, or the final code.
    """
    finals = frozenset(final_codes)
    umask = os.umask(0o077)
    main = [child for child in children if not child.aside]
    groups = [tuple(main)] if together else [(child,) for child in main]
    asides = [(child,) for child in children if child.aside]
    try:
        with open_lifeline() as lifeline, _set_by_signals(stopping):
            units = [_Unit(group, lifeline, finals, delays or {}, on_change) for group in groups]
            none: frozenset[int] = frozenset()
            units += [_Unit(group, lifeline, none, {}, on_change) for group in asides]
            return _watch(units, stopping)
    finally:
        os.umask(umask)


def _watch(units: Sequence[_Unit], stopping: threading.Event) -> int:
    try:
        while not stopping.is_set():
            for unit in units:
                code = unit.look()
                if code in unit.finals:
                    return code
            stopping.wait(POLL_SECONDS)
        return 0
    finally:
        _stop([process for unit in units for process in unit.running])
        for unit in units:
            unit.close()


class _Unit:
    """Children that are started and stopped together."""

    def __init__(
        self,
        children: Sequence[Child],
        lifeline: int,
        finals: frozenset[int],
        delays: Mapping[int, float],
        on_change: OnChange,
    ) -> None:
        self._children = children
        self._lifeline = lifeline
        self.finals = finals
        self._delays = delays
        self._on_change = on_change
        self._logs = {child.name: ChildLog(child.log_path) for child in children}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._failures = 0
        self._started = 0.0
        self._due = 0.0

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        """Processes that are not yet known to have exited."""
        return list(self._processes.values())

    def look(self) -> int | None:
        """Start children that are due; return the exit code of a child that exited by itself."""
        if not self._processes:
            return self._start() if monotonic() >= self._due else None
        ended = {n: code for n, p in self._processes.items() if (code := p.poll()) is not None}
        return self._end(ended) if ended else None

    def close(self) -> None:
        """Report the stopped children, and close the logs."""
        self._report_stopped(None)
        for log in self._logs.values():
            log.close()

    def _start(self) -> int | None:
        self._started = monotonic()
        for child in self._children:
            try:
                process = _launch(child, self._lifeline)
            except OSError as error:  # out of memory or processes; it may pass
                why = f"could not be started: {os_error_line(error)}"
                return self._end({child.name: NOT_STARTED}, why)
            self._processes[child.name] = process
            self._readers[child.name] = _copy(process, self._logs[child.name])
            self._on_change(Change(child.name, "started", process.pid))
        return None

    def _end(self, ended: Mapping[str, int], why: str = "") -> int:
        """Stop the remaining children after one exited, and schedule the restart."""
        final = next((code for code in ended.values() if code in self.finals), None)
        code = next(iter(ended.values())) if final is None else final
        delay = None if final is not None else self._next_delay(code)
        for name, number in ended.items():
            how, process = why or how_it_ended(number), self._processes.pop(name, None)
            pid = process.pid if process else 0
            if process:
                self._readers[name].join(LAST_WORDS_SECONDS)
            self._logs[name].note(f"the {name} process {how}")
            self._on_change(Change(name, "ended", pid, number, delay, how))
        _stop(self.running)
        self._report_stopped(delay)
        self._due = monotonic() + (delay or 0.0)
        return code

    def _next_delay(self, code: int) -> float:
        if monotonic() - self._started >= GOOD_LIFE_SECONDS:
            self._failures = 0
        self._failures += 1
        backoff = 2.0 ** min(self._failures - 1, 10)
        return self._delays.get(code, min(backoff, LONGEST_DELAY_SECONDS))

    def _report_stopped(self, delay: float | None) -> None:
        for name, process in self._processes.items():
            self._on_change(Change(name, "stopped", process.pid, process.returncode, delay))
        self._processes.clear()


def _launch(child: Child, lifeline: int) -> subprocess.Popen[bytes]:
    return start_process(
        child.argv,
        folder=child.folder,
        env={**child.env, LIFELINE: str(lifeline)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lifeline,),
    )


def _copy(process: subprocess.Popen[bytes], log: ChildLog) -> threading.Thread:
    assert process.stdout is not None
    reader = threading.Thread(target=log.copy, args=(process.stdout,), daemon=True)
    reader.start()
    return reader


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop processes with SIGTERM; after 20 s kill them and all their children."""
    for process in processes:
        process.terminate()
    deadline = monotonic() + GRACEFUL_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _set_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set an event, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, lambda *_: stopping.set()) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
