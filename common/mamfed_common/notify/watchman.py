"""The watchman: a process beside a run that reads its home, tells people, and serves metrics.

It only reads what the run writes, so it costs the run nothing and cannot harm it. The supervisor
starts it if ``notify`` or ``metrics_port`` is set, and ends it after everything else, so that it
can tell how a run ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from mamfed_common.errors import MamfedError
from mamfed_common.notify.notice import Notice
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime import terminal
from mamfed_common.runtime.child_processes import module_command, start_process
from mamfed_common.runtime.files import os_error_line, refusal_words
from mamfed_common.runtime.lifeline import LIFELINE, hold_lifeline, open_lifeline
from mamfed_common.runtime.process_supervisor import child_environment

if TYPE_CHECKING:
    from prometheus_client import Metric

LOOPBACK = "127.0.0.1"
LAST_SECONDS = 20.0
"""Longest time that the end of ``start`` waits for the last notices."""
Collect = Callable[[], Iterable["Metric"]]
H = TypeVar("H")
"""A home: a site's or a coordinator's."""


class Watched(Protocol):
    """What the watchman reads of ``site.yaml`` or ``server.yaml``."""

    @property
    def notify(self) -> Notify:
        """Who is told."""

    @property
    def metrics_port(self) -> int | None:
        """Port of this machine for metrics; None: none."""

    def source(self) -> str:
        """Return who sends the notices."""


@contextmanager
def watchman(module: str, home: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Run a watchman process while entered; its failure is one line.

    Args:
        module: Module to run, with the home as its argument.
        home: The home.
        say: Writes a line to the journal.
    """
    with open_lifeline() as lifeline:
        try:
            process = _start(module_command(module, str(home.absolute())), home, lifeline)
        except OSError as error:
            say(f"notify and metrics are off: {os_error_line(error)}")
            process = None
        try:
            yield
        finally:
            if process is not None:
                _end(process, say)


def run_watchman(
    notify: Notify,
    metrics_port: int | None,
    home: Path,
    source: str,
    notices: Callable[[], Iterable[Notice]],
    collect: Collect,
) -> None:
    """Tell notices and serve metrics until this process is asked to end.

    Args:
        notify: Who is told.
        metrics_port: Port of this machine for metrics; None: none.
        home: The home.
        source: Who sends the notices.
        notices: Returns the notices that hold now.
        collect: Returns the metrics of now.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    hold_lifeline()
    os.umask(0o077)
    if metrics_port is not None:
        _serve(metrics_port, collect)
    if notify.is_on:
        from mamfed_common.notify.watcher import Watcher

        Watcher(notify, home, source, notices, _say).watch(stopping)
    else:
        stopping.wait()


def watch_home(
    home_of: Callable[[Path], H],
    load: Callable[[H], Watched],
    notices: Callable[[H, Notify], Iterable[Notice]],
    metrics: Callable[[H], Iterable[Metric]],
) -> None:
    """Be the watchman of the home that the command line names.

    Args:
        home_of: Makes a home of its folder.
        load: Reads its settings.
        notices: Returns the notices that hold now.
        metrics: Returns the metrics of now.
    """
    terminal.set_environment()
    path = Path(sys.argv[1])
    home = home_of(path)
    try:
        settings = load(home)
    except MamfedError as error:
        sys.exit(f"notify and metrics are off: {error}")
    run_watchman(
        settings.notify,
        settings.metrics_port,
        path,
        settings.source(),
        lambda: notices(home, settings.notify),
        lambda: metrics(home),
    )


def _start(argv: Sequence[str], home: Path, lifeline: int) -> subprocess.Popen[bytes]:
    return start_process(
        argv,
        folder=home.absolute(),
        env={**child_environment(home.absolute() / "flower"), LIFELINE: str(lifeline)},
        stderr=None,
        pass_fds=(lifeline,),
    )


def _end(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    if process.poll() is not None:
        say(f"notify and metrics had ended early, with code {process.returncode}")
        return
    process.terminate()
    try:
        process.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        say(f"notify: the last notices were not delivered within {LAST_SECONDS:g} seconds")
        process.kill()
        process.wait()


def _serve(port: int, collect: Collect) -> None:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.registry import Collector

    class Home(Collector):
        def collect(self) -> Iterable[Metric]:
            return collect()

        def describe(self) -> Iterable[Metric]:
            return ()  # do not read the home before the first scrape

    registry = CollectorRegistry()
    registry.register(Home())
    try:
        start_http_server(port, LOOPBACK, registry)
    except OSError as error:
        _say(f"metrics: cannot listen on {LOOPBACK}:{port}: {refusal_words(error)}; there are none")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
