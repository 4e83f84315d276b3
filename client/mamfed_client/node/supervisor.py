"""``mamfed-client start``: run a node and a worker for weeks, and restart them when they end."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from rich.console import Console

from mamfed_client.site.certificate import site_certificate
from mamfed_client.site.home_location import check_home_location
from mamfed_client.site.settings import SiteHome, SiteSettings, load_site_settings
from mamfed_client.site.status import REFUSED, State, Status, read_status, update_status
from mamfed_common.errors import LinkError, MamfedError, SetupError
from mamfed_common.notify.watchman import watchman
from mamfed_common.protocol.versions import check_flower
from mamfed_common.runtime.child_processes import ask_process, module_command
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_common.runtime.output_checks import check_room
from mamfed_common.runtime.process_supervisor import Change, Child, child_environment, supervise
from mamfed_common.runtime.wording import span
from mamfed_common.security.certificates import check_validity
from mamfed_common.security.enrolment import Welcome, check_welcome, read_welcome
from mamfed_common.security.keys import read_key

MODULES = {"node": "mamfed_client.node.supernode", "worker": "mamfed_client.node.executor"}
"""Module of each process of a site; the process's name is also the name of its log."""

REFUSED_SECONDS = 60.0
"""Seconds until a refused site tries again, as it may have been approved meanwhile."""
FINAL_CODES = frozenset({SetupError.exit_code, LinkError.exit_code})
"""Exit codes of a child process after which a restart would not help."""
CANCEL_SECONDS = 60.0
PAGE = "dashboard"
"""Name of the process of the site's page."""
PAGE_ADDRESS = "dashboard.url"
"""File in the home with its address (``mamfed_common.web.serving``)."""
FOLLOW_SECONDS = 0.5
WATCHMAN = "mamfed_client.node.watchman"
ROOM_BYTES = 1 << 18
"""Free disk space that a site needs to start, for status, audit log and logs."""

WORDS: dict[State, str] = {
    "stopped": "stopped",
    "connecting": "connecting to {server}",
    "online": "online: {server} answers",
    "training": "working: {task}",
    "refused": "refused by the coordinator: {error}",
    "unreachable": "not reachable: {error}",
}


def check_start(home: SiteHome) -> Welcome:
    """Check everything that a site needs to start, without contacting the server.

    Raises:
        SetupError: Flower, ``site.yaml``, a key, the welcome or the certificate cannot be used.
    """
    check_flower()
    settings = load_site_settings(home)
    if not home.welcome.exists():
        raise SetupError(
            f"{home.welcome}: not found; run mamfed-client enroll, then mamfed-client join with "
            "the coordinator's welcome"
        )
    welcome = read_welcome(home.welcome)
    if welcome.site != settings.name:
        raise SetupError(
            f"{home.settings_path}: found the name {settings.name!r}, expected {welcome.site!r} as "
            "in the welcome"
        )
    keys = [read_key(path, EllipticCurvePrivateKey) for path in (home.tls_key, home.node_key)]
    check_welcome(welcome, keys[0].public_key(), keys[1].public_key())
    check_validity(site_certificate(home), datetime.now(UTC), "this site's certificate")
    return welcome


def run_site(home: SiteHome, console: Console, *, page: bool = False) -> int:
    """Keep a site's node and worker running until stopped; return the exit code.

    Args:
        home: The site's home.
        console: Where to say what happens.
        page: Whether to serve the site's page as well.

    Raises:
        SetupError: Something required is missing, or the site is already running.
        LinkError: The coordinator runs another version.
        OutputError: The disk of its home is full.
    """
    settings = load_site_settings(home)  # first: no lock file must be left in another folder
    with exclusive_lock(home.lock, "this site"):
        welcome = check_start(home)
        check_room(home.path, ROOM_BYTES)
        console.print(f"site {welcome.site} of {welcome.federation}; Ctrl-C stops it")
        if copied := check_home_location(home.path):
            console.print(f"warning: {copied}")
        update_status(
            home,
            state="connecting",
            error="",
            server=welcome.server,
            supervisor_pid=os.getpid(),
            refusal=None,
        )
        try:
            with _watched(home, settings, console):
                code = _supervise(home, console, page=page)
        finally:
            _cancel_jobs(home, console)
            error = read_status(home).error
            update_status(
                home, state="stopped", supervisor_pid=0, node_pid=0, worker_pid=0, task=None
            )
    if code in FINAL_CODES:
        kind = SetupError if code == SetupError.exit_code else LinkError
        raise kind(error or f"a process ended permanently; see {home.logs}")
    return code


def _cancel_jobs(home: SiteHome, console: Console) -> None:
    """Cancel the site's jobs on a cluster: whoever stops a site stops its computations.

    A site that was killed gets no further than its last line, and finds its job again.
    """
    try:
        settings = load_site_settings(home)
        if settings.executor.kind == "local":
            return
        argv = module_command("mamfed_client.cluster.cancel", str(home.path.absolute()))
        done = ask_process(argv, CANCEL_SECONDS)
        lines = (done.stdout if done.returncode == 0 else done.stderr).splitlines()
        for line in lines[-1:]:
            console.print(line)
    except (MamfedError, OSError, subprocess.TimeoutExpired) as error:
        console.print(f"warning: a job of this site may still run: {error}")


def _watched(
    home: SiteHome, settings: SiteSettings, console: Console
) -> AbstractContextManager[None]:
    if settings.notify.is_on or settings.metrics_port is not None:
        return watchman(WATCHMAN, home.path, console.print)
    return nullcontext()


def _supervise(home: SiteHome, console: Console, *, page: bool) -> int:
    if page:
        console.print(f"page: open the address in {home.path / PAGE_ADDRESS}")
    with _Follower(home, console):
        return supervise(
            [*children_of(home), *([page_of(home)] if page else [])],
            together=True,
            stopping=threading.Event(),
            final_codes=FINAL_CODES,
            delays={REFUSED: REFUSED_SECONDS},
            on_change=lambda change: _tell(home, console, change),
        )


def children_of(home: SiteHome) -> list[Child]:
    """Return a site's two processes.

    They are restarted together: only the node knows of its worker's message, and the coordinator
    asks a restarted node again.
    """
    environment = child_environment(home.path.absolute() / "flower")
    path = str(home.path.absolute())
    return [
        Child(
            name,
            module_command(module, path),
            home.logs / f"{name}.log",
            environment,
            Path(path),
        )
        for name, module in MODULES.items()
    ]


def page_of(home: SiteHome) -> Child:
    """Return the process of the site's page; the others do not depend on it."""
    path = home.path.absolute()
    argv = module_command("mamfed_client", "dashboard", "--home", str(path))
    environment = child_environment(path / "flower")
    return Child(PAGE, argv, home.logs / f"{PAGE}.log", environment, path, aside=True)


def words(status: Status) -> str:
    """Return the state of a site in one line."""
    if status.refusal and _only_refuses(status):
        return f"refused, because {status.refusal.words}"
    if status.ended and status.state == "online":
        return f"online: {status.ended.words()}"
    if status.ended and status.state == "unreachable":
        return f"waiting for the next run: {status.ended.words()} ({status.error})"
    task = status.task.words() if status.task else "reading a request"
    return WORDS[status.state].format(server=status.server, error=status.error, task=task)


def _only_refuses(status: Status) -> bool:
    """Return whether the site is connected and not training."""
    at_work = status.task is not None and status.task.steps > 0
    return status.state in ("online", "training") and not at_work


def _tell(home: SiteHome, console: Console, change: Change) -> None:
    if change.name in MODULES:
        pid = change.pid if change.event == "started" else 0
        update_status(home, **{f"{change.name}_pid": pid})
    if change.event == "started" and change.name == "node":
        update_status(home, state="connecting", task=None)
    if change.event == "ended" and change.code != REFUSED and change.delay_seconds is not None:
        delay = span(change.delay_seconds)
        log = home.logs / f"{change.name}.log"
        console.print(f"the {change.name} process {change.how}; restarting in {delay}, see {log}")


class _Follower:
    """Prints a line for each change of the site's state."""

    def __init__(self, home: SiteHome, console: Console) -> None:
        self._home = home
        self._console = console
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        last_line = ""
        while not self._done.wait(FOLLOW_SECONDS):
            line = words(read_status(self._home))
            if line != last_line:
                last_line = line
                self._console.print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")
