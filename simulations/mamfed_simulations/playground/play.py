"""Run a playground: start its processes and pages, follow the run, end everything."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

from mamfed_common.errors import MamfedError, RunError
from mamfed_common.runtime.lifeline import open_lifeline
from mamfed_common.runtime.lock import exclusive_folder
from mamfed_common.runtime.output_checks import check_folder
from mamfed_common.web.serving import ADDRESS_FILE
from mamfed_server.run.run_choice import find_run
from mamfed_server.run.state import RunState, run_status_of
from mamfed_simulations.playground.layout import SITES, Layout, is_playground, run_name
from mamfed_simulations.playground.processes import Processes
from mamfed_simulations.playground.setup import Say, Setup

PAGE_SECONDS = 300.0
"""How long a page may take to come; loading torch takes long on a busy machine."""
LOOK_SECONDS = 0.5
COORDINATOR = "coordinator"
PAGE_OF = ("dashboard", "--port", "0", "--home")
OVER = (RunState.FINISHED, RunState.FAILED)


class Started(NamedTuple):
    """A playground that runs.

    Attributes:
        run: The name of the run.
        folder: Where everything lies.
        pages: The address of each page, by role: ``coordinator`` and each site.
        pids: Each process, by name.
    """

    run: str
    folder: Path
    pages: Mapping[str, str]
    pids: Mapping[str, int]


@contextmanager
def alone(out: Path) -> Iterator[Layout]:
    """Hold the folder of a playground against another one while the block runs.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
        SetupError: Another playground runs here.
    """
    check_folder(out, is_playground, "playground")
    with exclusive_folder(Path(os.path.abspath(out)), "another playground") as folder:
        yield Layout(folder)


def prepare(layout: Layout, rounds: int, say: Say) -> list[str]:
    """Set a playground up, or find it set up; return the commands that ran, as typed.

    A run that has not ended is gone on with; otherwise the next one is planned.

    Raises:
        OutputError: The folder cannot be written.
        SetupError: A command failed.
    """
    setup = Setup(layout, say)
    remembered = setup.homes()
    if remembered.runs == 0 or _is_over(layout, run_name(remembered.runs)):
        setup.plan(remembered, rounds)
    return setup.typed


def start_commands(layout: Layout) -> dict[str, list[str]]:
    """Return the commands that run the playground, by the name of the process."""
    run = layout.remembered().runs
    server = str(layout.server)
    commands = {
        COORDINATOR: [
            "mamfed-server", "start", "--plan", str(layout.plan(run)), "--run", run_name(run),
            "--home", server,
        ]
    }  # fmt: skip
    for name in SITES:
        commands[name] = ["mamfed-client", "start", "--home", str(layout.site(name))]
    commands[f"{COORDINATOR}-page"] = ["mamfed-server", *PAGE_OF, server]
    for name in SITES:
        commands[f"{name}-page"] = ["mamfed-client", *PAGE_OF, str(layout.site(name))]
    return commands


def typed(layout: Layout) -> list[str]:
    """Return the lines that start the playground by hand, each in a terminal of its own."""
    variables = [f"export {k}={shlex.quote(v)}" for k, v in layout.environment.items()]
    return [*variables, *(shlex.join(words) for words in start_commands(layout).values())]


def play(
    layout: Layout, say: Say, on_started: Callable[[Started], None], *, until_end: bool = False
) -> None:
    """Run the playground until SIGTERM or Ctrl-C.

    Args:
        layout: A playground that is set up.
        say: Called with what happens.
        on_started: Called once every page can be opened.
        until_end: Whether to end once the run has ended.

    Raises:
        SetupError: A process ended at its start.
        RunError: The run failed, and ``until_end`` asked for its end.
    """
    stopping = Event()
    with open_lifeline() as lifeline, _set_by_signals(stopping):
        processes = Processes(layout.logs, layout.environment, lifeline)
        try:
            _start(layout, processes, stopping, say, on_started)
            _follow(layout, processes, stopping, say, until_end=until_end)
        finally:
            say("ending every process")
            processes.close()


def _start(
    layout: Layout,
    processes: Processes,
    stopping: Event,
    say: Say,
    on_started: Callable[[Started], None],
) -> None:
    homes = {COORDINATOR: layout.server, **{name: layout.site(name) for name in SITES}}
    for home in homes.values():
        (home / ADDRESS_FILE).unlink(missing_ok=True)  # of a page that was killed
    commands = start_commands(layout)
    for name, command in commands.items():
        processes.start(name, command)
    say(f"starting {len(commands)} processes; their pages come in a minute on a busy machine")
    pages = {
        role: processes.address(f"{role}-page", home, PAGE_SECONDS, stopping)
        for role, home in homes.items()
    }
    if stopping.is_set():
        return
    pids = {name: process.pid for name, process in processes.running.items()}
    run = run_name(layout.remembered().runs)
    on_started(Started(run, layout.path, pages, pids))


def _follow(
    layout: Layout, processes: Processes, stopping: Event, say: Say, *, until_end: bool
) -> None:
    run, told = run_name(layout.remembered().runs), ""
    while not stopping.wait(LOOK_SECONDS):
        progress = _progress(layout, run)
        if progress and progress != told:
            told = progress
            say(progress)
        for name, code in processes.ended().items():
            processes.forget(name)
            if name != COORDINATOR or code:
                say(f"{name} ended with code {code}; see {processes.log(name)}")
            if name == COORDINATOR:
                say(f"run {run} has ended; read it with: {_report(layout, run)}")
        if until_end and COORDINATOR not in processes.running:
            break
    if until_end and not stopping.is_set() and not _is_finished(layout, run):
        raise RunError(f"run {run} did not finish; see {processes.log(COORDINATOR)}")


def _report(layout: Layout, run: str) -> str:
    return shlex.join(["mamfed-server", "report", run, "--home", str(layout.server)])


def _progress(layout: Layout, run: str) -> str:
    try:
        return run_status_of(find_run(run, layout.server / "runs")).progress()
    except MamfedError:
        return ""


def _is_over(layout: Layout, run: str) -> bool:
    return _state(layout, run) in OVER


def _is_finished(layout: Layout, run: str) -> bool:
    return _state(layout, run) is RunState.FINISHED


def _state(layout: Layout, run: str) -> RunState | None:
    try:
        return run_status_of(find_run(run, layout.server / "runs")).state
    except MamfedError:
        return None


@contextmanager
def _set_by_signals(stopping: Event) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
