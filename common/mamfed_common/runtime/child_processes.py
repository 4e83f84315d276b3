"""The one way in which mamfed starts a process.

A child imports mamfed's modules and none that lies in the folder in which somebody happened to
start it; it works in a folder of its own; and it holds no stream of the terminal, which may close.
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
"""Python 3.11: no current folder on the import path, neither a child's nor that of its children."""

Stream = IO[bytes] | int


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs one of mamfed's modules."""
    return (sys.executable, "-P", "-m", module, *arguments)


def how_it_ended(code: int) -> str:
    """Say how a process ended, in words that follow its name, by its exit code or minus a signal.

    One that is killed has no last words, and most often it was the system that had no memory left.
    """
    if code == -signal.SIGKILL:
        return "was killed; the system does that where memory is short"
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
    """Start a process in a session of its own: Ctrl-C reaches this process alone.

    Args:
        argv: Its command line; paths in it are absolute.
        folder: Its working folder; None: the root of the file system, which nobody unmounts.
        env: Its environment.
        stdin: Where it reads from.
        stdout: Where its results go.
        stderr: Where its messages go; None: where this process's go.
        pass_fds: Descriptors that it takes over.
        bufsize: As ``subprocess.Popen`` takes it.

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
