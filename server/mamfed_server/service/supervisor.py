"""``mamfed-server start``: checks, then a server process that is watched and started again."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from errno import EADDRINUSE
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mamfed_common.errors import LinkError, MamfedError, PlanError, RunError, SetupError
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
from mamfed_server.run_folder.event_log import EventLog, in_words, read_events
from mamfed_server.run_folder.folder import SUMMARY, RunFolder
from mamfed_server.service.status_file import StatusFile
from mamfed_server.settings import ServerHome, ServerSettings, load_settings

FINAL_CODES = frozenset({0, 3, 5, 6, 7, 9})
"""Exit codes of the server process after which starting it again would not help."""

MAX_DEATHS = 10
"""Deaths in a row without a round in between, after which the run is given up."""

FOLLOW_SECONDS = 0.5

PORT_SECONDS = 5.0
"""How long a server that was killed just now may still hold its port."""


def check_start(home: ServerHome, plan: TrainingPlan, run: str) -> Iterator[str]:
    """Check all that a run needs, and say what it will be; nothing is written.

    Raises:
        SetupError: Flower, the settings, a key or a certificate cannot be used, or no site may
            take part.
        PlanError: The run's folder holds another plan, or a new plan contradicts itself.
    """
    if Path(run).name != run or run.startswith("."):
        raise PlanError(f"found the run name {run!r}, expected the plain name of a folder")
    check_flower()
    settings = load_settings(home)
    load_plan_key(home)
    days = _days_left(home)
    folder = RunFolder(home.runs / run)
    if folder.holds_run():
        check_same_plan(folder, plan)
    else:
        refuse_contradictions(plan, "the plan")
    if len(sites := active_sites(home)) < (wanted := min_updates(plan)):
        raise SetupError(
            f"{counted(len(sites), 'site is', 'sites are')} approved, the plan needs {wanted}; "
            "mamfed-server sites approve"
        )
    yield describe(folder, plan)
    yield from warn_of_older(folder)
    yield from left_behind(home.runs, run, plan)
    yield f"listening on {settings.bind}:{settings.port}, server certificate for {days} more days"
    yield ", ".join(f"{counted(plan.stage(s).rounds, 'round')} of {s}" for s in stages_of(plan))
    yield from tolerance(plan, sites)
    yield from privacy(plan)


def run_server(home: ServerHome, plan: TrainingPlan, run: str, console: Console) -> int:
    """Run the server process until the run ends; return the exit code to end with.

    Raises:
        SetupError: Another server runs in this home.
        LinkError: The address cannot be listened on.
        OutputError: The run folder cannot be made.
    """
    folder = RunFolder(home.runs / run)
    with exclusive_lock(home.lock, "a server"):
        _check_address(load_settings(home))
        with folder.alone():
            StatusFile(
                home.path, run=run, plan_sha256=plan.sha256()
            ).write()  # not of the run before
            code = _supervise(home, folder, plan, console)
    console.print(_ending(folder, code))
    console.print(_report(folder))
    return code


def _supervise(home: ServerHome, folder: RunFolder, plan: TrainingPlan, console: Console) -> int:
    """Keep the server process running until the run ends; return the exit code to end with."""
    if not folder.holds_run():
        folder.create(plan)
    elif not folder.is_finished():
        folder.reopen()  # from now on it runs: how it ended before is no longer how it stands
    stopping = threading.Event()
    watch = _Deaths(folder, home.logs / "server.log", console, stopping)
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
            on_change=watch.changed,
        )
    code = code or watch.code
    _note_end(folder, code, watch.code)
    return code


def _note_end(folder: RunFolder, code: int, given_up: int) -> None:
    """Note how a run ended whose server process has not told it itself."""
    if (folder.path / SUMMARY).exists():
        return
    log = EventLog()
    log.open(folder.path)
    if code == 0:
        log.write("stopped")
        return
    how = how_it_ended(code)
    if given_up:
        how = f"died {MAX_DEATHS} times in a row without a round in between"
    log.write("died", reason=f"its server process {how}; logs/server.log says why")


def _days_left(home: ServerHome) -> int:
    """Return how long the server's certificate is still valid."""
    left = load_server_certificate(home).not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta():
        ago = counted(-left.days, "day")
        raise SetupError(f"{home.server_certificate}: ended {ago} ago; mamfed-server sites rotate")
    return left.days


def _check_address(settings: ServerSettings) -> None:
    """Refuse an address that cannot be listened on, before a server dies of it ten times."""
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


class _Deaths:
    """Says when the server process died, and gives up where it never gets on."""

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

    def changed(self, change: Change) -> None:
        if change.event != "ended" or change.delay_seconds is None:
            return
        again = span(change.delay_seconds)
        self._console.print(f"the server process {change.how}; again in {again}, see {self._log}")
        rounds = len(self._folder.rounds())
        self._count = self._count + 1 if rounds == self._rounds else 1
        self._rounds = rounds
        if self._count >= MAX_DEATHS:
            self._console.print(f"given up after {MAX_DEATHS} deaths without a round in between")
            self.code = RunError.exit_code
            self._stopping.set()


class _Follower:
    """Shows a run's rounds and events while another process writes them."""

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
                self._bar.console.print(f"{event['time']} {in_words(event)}")
            seen = len(events)
            if last:
                return


def _ending(folder: RunFolder, code: int) -> str:
    """Say how the run stands now that its server has ended."""
    found = run_status_of(folder.path)
    missing = [line for line in found.attendance() if line.missed]
    if code or found.state is not RunState.FINISHED:
        failed = f" (exit code {code})" if code else ""
        goes_on = f"mamfed-server resume {found.run} goes on"
        return f"{found.doing()}{failed}; {found.progress()}; {goes_on}"
    words = f"finished; checkpoint: {found.kept.path if found.kept else 'none'}"
    return "; ".join([words, *(line.words() for line in missing)])


def _report(folder: RunFolder) -> str:
    """Write the run's page, however it ended, and say where; without the extra, how to get it."""
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
    except (MamfedError, OSError) as error:  # the run's own result counts
        return f"no report.html: {error}"
