"""Start child processes, the same way everywhere.

A child never imports modules from the current folder, has its own working folder, and uses no
stream of the terminal, which may close.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Keeps the current folder off the import path of a child and its children (Python 3.11)."""

Stream = IO[bytes] | int
LONGEST_LINE = 1000
"""Most characters that are quoted of what a process said."""


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module of mamfed."""
    return (sys.executable, "-P", "-m", module, *arguments)


def how_it_ended(code: int) -> str:
    """Describe how a process ended, in words that follow its name.

    Args:
        code: Its exit code, or minus the number of the signal that ended it. SIGKILL usually means
            that the system ran out of memory.
    """
    if code == -signal.SIGKILL:
        return "was killed, probably by the system because memory ran out"
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with code {code}"


def start_process(
    argv: Sequence[str],
    *,
    folder: Path | None = None,
    env: Mapping[str, str],
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream | None = subprocess.DEVNULL,
    pass_fds: Collection[int] = (),
    bufsize: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a process in its own session, so that Ctrl-C does not reach it.

    Args:
        argv: Its command line, with absolute paths.
        folder: Its working folder; None means the root of the file system, which is never
            unmounted.
        env: Its environment.
        stdin: Its standard input.
        stdout: Its standard output.
        stderr: Its standard error; None means that of this process.
        pass_fds: Descriptors that it inherits.
        bufsize: As in ``subprocess.Popen``.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(
        argv,
        cwd=folder or Path(os.sep),
        env={**env, **SAFE_PATH},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        bufsize=bufsize,
    )


def ask_process(
    argv: Sequence[str],
    seconds: float,
    *,
    text: str = "",
    is_heard: bool = True,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end and return what it printed.

    Args:
        argv: Its command line.
        seconds: How long it may take; it is killed then, with its children.
        text: What it reads from its standard input.
        is_heard: Whether what it prints is returned. Otherwise it goes nowhere, and a child that
            outlives the process is not waited for.
        folder: As in :func:`start_process`.
        env: Its environment; None means that of this process.

    Raises:
        OSError: It cannot be started.
        TimeoutExpired: It took too long.
    """
    output = subprocess.PIPE if is_heard else subprocess.DEVNULL
    process = start_process(
        argv,
        folder=folder,
        env=os.environ if env is None else env,
        stdin=subprocess.PIPE if text else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        printed, said = process.communicate(text.encode() if text else None, timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    words = ((heard or b"").decode(errors="replace") for heard in (printed, said))
    return subprocess.CompletedProcess(argv, process.returncode, *words)


def last_line(text: str) -> str:
    """Return the last line that is not blank of what a process said; empty if there is none.

    It is without ``error: ``, which one of our own commands puts before it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ")[:LONGEST_LINE] if lines else ""
