"""``mamfed-server start``: check the setup, then run a server process and restart it if it dies."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from errno import EADDRINUSE
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mamfed_common.errors import (
    LinkError,
    MamfedError,
    OutputError,
    PlanError,
    RunError,
    SetupError,
)
from mamfed_common.notify.watchman import watchman
from mamfed_common.plan import TrainingPlan
from mamfed_common.protocol.versions import check_flower
from mamfed_common.runtime.child_processes import how_it_ended, module_command
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.optional_packages import install_command
from mamfed_common.runtime.process_supervisor import Change, Child, child_environment, supervise
from mamfed_common.runtime.wording import counted, span
from mamfed_server.admission.certificate_authority import load_plan_key, load_server_certificate
from mamfed_server.admission.registry import active_sites
from mamfed_server.report.plan_page import privacy, tolerance
from mamfed_server.run.participants import stages_of
from mamfed_server.run.plan_checks import min_updates, refuse_contradictions
from mamfed_server.run.resume import check_same_plan
from mamfed_server.run.run_choice import describe, left_behind, warn_of_older
from mamfed_server.run.state import RunState, run_status_of
from mamfed_server.run_folder.event_log import EventLog, as_log_line, read_events
from mamfed_server.run_folder.folder import SUMMARY, RunFolder
from mamfed_server.service.status_file import StatusFile
from mamfed_server.settings import ServerHome, ServerSettings, load_settings

FINAL_CODES = frozenset({0, 3, 5, 6, 7, 9})
"""Exit codes of the server process after which a restart would not help."""

MAX_CRASHES = 10
"""Consecutive crashes without a completed round after which the run is given up. An end for lack of
room on the disk, or of descriptors, is none: it is tried again every half minute."""

FOLLOW_SECONDS = 0.5
WATCHMAN = "mamfed_server.service.watchman"

PORT_SECONDS = 5.0
"""How long a server that has just been killed may still hold its port."""


def check_start(home: ServerHome, plan: TrainingPlan, run: str) -> Iterator[str]:
    """Check everything that a run needs and yield lines that describe it; write nothing.

    Raises:
        SetupError: Flower, the settings, a key or a certificate cannot be used, or too few sites
            are approved.
        PlanError: The run's folder holds another plan, or a new plan contradicts itself.
    """
    if Path(run).name != run or run.startswith("."):
        raise PlanError(f"run name: found {run!r}, expected the plain name of a folder")
    check_flower()
    settings = load_settings(home)
    load_plan_key(home)
    days = _days_left(home)
    folder = RunFolder(home.runs / run)
    if folder.holds_run():
        check_same_plan(folder, plan)
    else:
        refuse_contradictions(plan, "the plan")
    if len(sites := active_sites(home)) < (required := min_updates(plan)):
        raise SetupError(
            f"{counted(len(sites), 'site is', 'sites are')} approved, but the plan needs "
            f"{required}; approve more with mamfed-server sites approve"
        )
    yield describe(folder, plan)
    yield from warn_of_older(folder)
    yield from left_behind(home.runs, run, plan)
    yield (
        f"listening on {settings.bind}:{settings.port}, server certificate valid for "
        f"{counted(days, 'more day')}"
    )
    yield ", ".join(f"{counted(plan.stage(s).rounds, 'round')} of {s}" for s in stages_of(plan))
    yield from tolerance(plan, sites)
    yield from privacy(plan)


def run_server(
    home: ServerHome,
    plan: TrainingPlan,
    run: str,
    console: Console,
    beside: AbstractContextManager[None] | None = None,
) -> int:
    """Run the server process until the run ends; return the exit code of ``start``.

    Raises:
        SetupError: Another server runs in this home.
        LinkError: The server cannot listen on its address.
        OutputError: The run folder cannot be created.
    """
    folder = RunFolder(home.runs / run)
    with ExitStack() as afterwards:  # the watchman tells how the run ended, so it ends last
        with exclusive_lock(home.lock, "a server"):
            settings = load_settings(home)
            _check_address(settings)
            with folder.alone():
                # Replace what an earlier run has left in the file.
                StatusFile(home.path, run=run, plan_sha256=plan.sha256()).write()
                if settings.notify.is_on or settings.metrics_port is not None:
                    afterwards.enter_context(watchman(WATCHMAN, home.path, console.print))
                with beside or nullcontext():
                    code = _supervise(home, folder, plan, console)
    console.print(_final_line(folder, code))
    console.print(_write_report(folder))
    return code


def _supervise(home: ServerHome, folder: RunFolder, plan: TrainingPlan, console: Console) -> int:
    """Keep the server process running until the run ends; return the exit code of ``start``."""
    if not folder.holds_run():
        folder.create(plan)
    elif not folder.is_finished():
        folder.reopen()  # the run is running again: remove the summary of its earlier end
    stopping = threading.Event()
    crashes = _CrashCounter(folder, home.logs / "server.log", console, stopping)
    child = Child(
        "server",
        module_command(
            "mamfed_server.service.server_process", str(home.path.absolute()), folder.path.name
        ),
        home.logs / "server.log",
        child_environment(home.path.absolute() / "flower"),
        home.path.absolute(),
    )
    with _Follower(folder, plan, console):
        code = supervise(
            [child],
            together=False,
            stopping=stopping,
            final_codes=FINAL_CODES,
            on_change=crashes.on_change,
        )
    code = code or crashes.code
    _log_end(folder, code, gave_up=bool(crashes.code))
    return code


def _log_end(folder: RunFolder, code: int, *, gave_up: bool) -> None:
    """Log how a run ended if its server process did not write a summary."""
    if (folder.path / SUMMARY).exists():
        return
    log = EventLog()
    log.open(folder.path)
    if code == 0:
        log.write("stopped")
        return
    how = how_it_ended(code)
    if gave_up:
        how = f"crashed {MAX_CRASHES} times in a row without completing a round"
    log.write("died", reason=f"its server process {how}; see logs/server.log for the cause")


def _days_left(home: ServerHome) -> int:
    """Return for how many days the server's certificate is still valid."""
    left = load_server_certificate(home).not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta():
        ago = counted(-left.days, "day")
        raise SetupError(
            f"{home.server_certificate}: expired {ago} ago; renew it with mamfed-server sites "
            "rotate"
        )
    return left.days


def _check_address(settings: ServerSettings) -> None:
    """Refuse an address that cannot be bound, before the server process crashes on it."""
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    deadline = monotonic() + PORT_SECONDS
    while True:
        try:
            socket.create_server((settings.bind, settings.port), family=family).close()
        except OSError as error:
            number = error.errno or 0
            if number != EADDRINUSE or monotonic() > deadline:
                raise LinkError(
                    f"cannot listen on {settings.bind}:{settings.port}; is another server "
                    f"running? ({os.strerror(number)})"
                ) from None
            sleep(0.1)
        else:
            return


class _CrashCounter:
    """Reports crashes of the server process and gives up after too many without progress.

    Attributes:
        code: The exit code if it has given up, else 0.
    """

    def __init__(
        self, folder: RunFolder, log: Path, console: Console, stopping: threading.Event
    ) -> None:
        self._folder = folder
        self._log = log
        self._console = console
        self._stopping = stopping
        self._rounds = -1
        self._count = 0
        self.code = 0

    def on_change(self, change: Change) -> None:
        if change.event != "ended" or change.delay_seconds is None:
            return
        delay = span(change.delay_seconds)
        self._console.print(
            f"the server process {change.how}; restarting in {delay}, see {self._log}"
        )
        if change.code == OutputError.exit_code:  # such as a full disk: never given up, it may pass
            return
        rounds = len(self._folder.rounds())
        self._count = self._count + 1 if rounds == self._rounds else 1
        self._rounds = rounds
        if self._count >= MAX_CRASHES:
            self._console.print(
                f"given up after {MAX_CRASHES} crashes without a completed round in between"
            )
            self.code = RunError.exit_code
            self._stopping.set()


class _Follower:
    """Shows the rounds and events of a run while the server process writes them."""

    def __init__(self, folder: RunFolder, plan: TrainingPlan, console: Console) -> None:
        self._folder = folder
        self._total = plan.rounds
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._bar.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._bar.stop()

    def _follow(self) -> None:
        task = self._bar.add_task("rounds", total=self._total)
        seen = len(read_events(self._folder.path))
        while True:
            last = self._done.wait(FOLLOW_SECONDS)
            self._bar.update(task, completed=len(self._folder.rounds()))
            events = read_events(self._folder.path)
            for event in events[seen:]:
                self._bar.console.print(as_log_line(event))
            seen = len(events)
            if last:
                return


def _final_line(folder: RunFolder, code: int) -> str:
    """Return the state of the run after its server process has ended."""
    status = run_status_of(folder.path)
    missing = [line for line in status.attendance() if line.missed]
    if code or status.state is not RunState.FINISHED:
        failed = f" (exit code {code})" if code else ""
        resume = f"to resume it: mamfed-server resume {status.run}"
        return f"{status.doing()}{failed}; {status.progress()}; {resume}"
    words = f"finished; checkpoint: {status.kept.path if status.kept else 'none'}"
    return "; ".join([words, *(line.words() for line in missing)])


def _write_report(folder: RunFolder) -> str:
    """Write the run's report and return where it is, or how to get one."""
    try:
        from mamfed_server.report.data import RunNotes, environment, write_notes
        from mamfed_server.report.page import report_run
    except ModuleNotFoundError:
        command = f"mamfed-server report {folder.path}"
        return f"no report.html: {install_command('report')}, then {command}"
    try:
        notes = RunNotes(title=f"Run {folder.path.name}", environment=environment())
        write_notes(folder.path, notes)
        return f"report: {report_run(folder.path)}"
    except (MamfedError, OSError) as error:  # a missing report must not change the exit code
        return f"no report.html: {error}"
