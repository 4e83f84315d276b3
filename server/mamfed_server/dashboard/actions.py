"""What a person can do by the page: the same functions and commands as of ``mamfed-server``.

Each action is a line in ``actions.jsonl`` of the home and, while a run is going on, in its event
log, with the name of the person who is signed in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, sleep

from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.runtime.bounded import STATE_BYTES, parse_json, read_bytes
from mamfed_common.runtime.child_log import ChildLog
from mamfed_common.runtime.child_processes import ask_process, last_line, start_process
from mamfed_common.runtime.files import private_directory
from mamfed_common.runtime.lock import holder, stop
from mamfed_common.runtime.process_supervisor import child_environment
from mamfed_common.security.enrolment import EnrolmentRequest, read_request, write_document
from mamfed_server.admission import approval
from mamfed_server.dashboard.decisions import requests_folder
from mamfed_server.run.state import active_run
from mamfed_server.run_folder.event_log import Event, EventLog, read_events, utc_now
from mamfed_server.run_folder.jsonl import append_line, read_lines
from mamfed_server.settings import ServerHome

ACTIONS = "actions.jsonl"
START_LOG = "start.log"
PROGRAM = (sys.executable, "-P", "-c", "from mamfed_server.cli.main import main; main()")
"""Runs ``mamfed-server`` with this interpreter, wherever it is installed."""
CHECK_SECONDS = 90.0
"""Maximum time of a check before a start."""
REFUSED_SECONDS = 20.0
"""Within this time, a start that cannot work has said why."""
EXPORT_SECONDS = 900.0


def write_down(home: ServerHome, who: str, action: str, **facts: str) -> None:
    """Write an action to the home's journal, and to the event log of the active run.

    A run that has just been started writes its first event itself: that says that it is new.
    """
    event = {"time": utc_now(), "event": action, "by": who, **facts}
    append_line(home.path / ACTIONS, json.dumps(event))
    folder = active_run(home.runs)
    if folder is not None and read_events(folder):
        log = EventLog()
        log.open(folder)
        log.write(action, by=who, **facts)


def past_actions(home: ServerHome) -> list[Event]:
    """Return what people did by the page, oldest first."""
    found = []
    for line in read_lines(home.path / ACTIONS):
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def request_called(home: ServerHome, name: str) -> EnrolmentRequest:
    """Return a waiting request.

    Raises:
        SetupError: There is none of this name, or it is damaged.
    """
    if name != Path(name).name or name.startswith(".") or not name.endswith(".json"):
        raise SetupError("found no such request in the folder of requests")
    return read_request(requests_folder(home) / name)


def approve(home: ServerHome, who: str, name: str, fingerprint: str, *, replace: bool) -> Path:
    """Approve the request that a person has looked at; return the welcome file.

    Raises:
        SetupError: It has changed since, or cannot be approved.
    """
    request = request_called(home, name)
    if request.fingerprint() != fingerprint:
        raise SetupError(
            f"{name} has changed since you looked at it; compare its fingerprint again"
        )
    welcome = approval.approve(home, request, replace=replace)
    target = home.path / f"{request.site}.welcome.json"
    write_document(target, welcome)
    (requests_folder(home) / name).unlink(missing_ok=True)
    write_down(home, who, "site approved", site=request.site)
    return target


def put_aside(home: ServerHome, who: str, name: str) -> None:
    """Remove a request without approving it.

    Raises:
        SetupError: There is none of this name.
    """
    path = requests_folder(home) / name
    if name != Path(name).name or not path.is_file():
        raise SetupError("found no such request in the folder of requests")
    path.unlink()
    write_down(home, who, "request removed", request=name)


def revoke(home: ServerHome, who: str, site: str) -> None:
    """Revoke a site.

    Raises:
        SetupError: There is no such site, or it is already revoked.
    """
    approval.revoke(home, site)
    write_down(home, who, "site revoked", site=site)


def stop_run(home: ServerHome, who: str) -> None:
    """Stop the server; it ends within some seconds, and this page with it if it is its child.

    Raises:
        SetupError: No server is running.
    """
    if holder(home.lock) is None:
        raise SetupError("no server is running here")
    write_down(home, who, "stop asked")
    threading.Thread(target=_stop, args=(home.lock,), daemon=True).start()


def start_run(home: ServerHome, who: str, arguments: tuple[str, ...], **facts: str) -> None:
    """Start ``mamfed-server start`` or ``resume``, which outlives this page.

    Raises:
        MamfedError: It ended at once; the message is its own.
    """
    done = _run(home, (*arguments, "--dry-run"), CHECK_SECONDS) if "start" in arguments else None
    if done is not None and done.returncode:
        raise MamfedError(_why(done.stderr))
    log = private_directory(home.logs) / START_LOG
    ChildLog(log).close()  # creates it, readable by its owner alone
    offset = log.stat().st_size
    with log.open("ab") as output:
        child = start_process(
            (*PROGRAM, *arguments, "--home", str(home.path.absolute())),
            folder=home.path.absolute(),
            env=child_environment(home.path.absolute() / "flower"),
            stdout=output,
            stderr=output,
        )
    threading.Thread(target=child.wait, daemon=True).start()
    deadline = monotonic() + REFUSED_SECONDS
    while monotonic() < deadline:
        if child.poll():
            raise MamfedError(_why(read_bytes(log, STATE_BYTES)[offset:].decode(errors="replace")))
        if holder(home.lock) is not None:
            break
        sleep(0.2)
    write_down(home, who, "start asked" if "start" in arguments else "resume asked", **facts)


def run_command(home: ServerHome, who: str, action: str, arguments: tuple[str, ...]) -> str:
    """Run a command of ``mamfed-server`` to its end; return what it printed.

    Raises:
        MamfedError: It failed; the message is its own.
    """
    done = _run(home, arguments, EXPORT_SECONDS)
    if done.returncode:
        raise MamfedError(_why(done.stderr))
    write_down(home, who, action, command=" ".join(arguments[:2]))
    return done.stdout


def _run(
    home: ServerHome, arguments: tuple[str, ...], seconds: float
) -> subprocess.CompletedProcess[str]:
    path = home.path.absolute()
    argv = (*PROGRAM, *arguments, "--home", str(path))
    try:
        return ask_process(argv, seconds, folder=path, env=child_environment(path / "flower"))
    except subprocess.TimeoutExpired:
        raise MamfedError(
            f"mamfed-server {arguments[0]} did not end within {seconds:g} s"
        ) from None


def _why(text: str) -> str:
    return last_line(text) or "it ended without a word"


def _stop(lock: Path) -> None:
    stop(lock)
