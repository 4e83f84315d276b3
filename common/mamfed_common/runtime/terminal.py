"""Shared parts of the three commands: one-line errors, exit codes, version, environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import monotonic
from typing import Any

import click
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mamfed_common import __version__
from mamfed_common.errors import MamfedError, OutputError
from mamfed_common.runtime.commands import click_command
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.optional_packages import extra_of, missing_line
from mamfed_common.runtime.streams import tolerate_closed_streams
from mamfed_common.runtime.threads import spin_briefly

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Disables the telemetry of Flower and Ray; must be set before they are imported."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as in a shell."""


class Format(StrEnum):
    """Output format of a command's result."""

    TEXT = "text"
    JSON = "json"


class Screen(Console):
    """A console that prints texts verbatim, without markup and line wrapping.

    Paths may contain brackets, and a line in a log file belongs to one event. Use ``style`` for
    styles.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts verbatim, and tables and other objects in Rich's layout."""
        if all(isinstance(each, str) for each in objects):
            options = {"markup": False, "emoji": False, "soft_wrap": True, **options}
        super().print(*objects, **options)


def console() -> Screen:
    """Return the console for messages: stderr, so that stdout holds results only."""
    return Screen(stderr=True, highlight=False)


def print_lines(notes: Iterable[str]) -> None:
    """Print messages to stderr, one per line."""
    for note in notes:
        console().print(note)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation before an irreversible action.

    Args:
        question: The question, printed to stderr.
        yes: The user has already agreed (``--yes``).

    Raises:
        MamfedError: The answer was no, or nobody can answer.
    """
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):  # Ctrl-C
            raise
        raise MamfedError(
            "nobody answered, so nothing was changed; --yes skips the question"
        ) from None
    if not agreed:
        raise MamfedError("not confirmed, so nothing was changed")


def contact_of(contact: str, question: str) -> str:
    """Return the contact for the other side, asking for it at a terminal if it is empty.

    A warning is printed if it remains empty.
    """
    if not contact and sys.stdin.isatty():
        contact = str(typer.prompt(f"{question} (name, number)", default="", err=True)).strip()
    if not contact:
        console().print(
            "warning: no --contact: the other side will not know whom to phone to compare "
            "fingerprints"
        )
    return contact


Advance = Callable[[int, int], None]
"""Called with the number of files newly done, and how many of them were rejected."""


@contextmanager
def reading_progress(description: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on stderr: files done, files/s, time left and rejected files.

    Args:
        description: Label of the bar; empty disables it.
        total: Total number of files.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[rejected]} rejected"),
        TimeRemainingColumn(),
    )
    rejected, started, first = 0, monotonic(), None
    with Progress(*columns, console=console(), disable=not description) as bar:
        task = bar.add_task(description, total=total, rejected=0, rate="")

        def advance(done: int, newly_rejected: int) -> None:
            nonlocal rejected, first
            rejected += newly_rejected
            first = bar.tasks[task].completed + done if first is None else first
            fresh = bar.tasks[task].completed + done - first
            rate = f"{fresh / max(monotonic() - started, 1e-3):.1f} files/s"
            bar.update(task, advance=done, rejected=rejected, rate=rate)

        yield advance


def set_environment() -> None:
    """Disable telemetry and update checks; let threads spin only briefly, unless the user set it.

    Call this before importing Flower, Ray or torch, which read the environment once.
    """
    os.environ.update(ENVIRONMENT)
    spin_briefly()


def show_version(wanted: bool) -> None:
    """Print the version and exit, if ``--version`` was given."""
    if wanted:
        typer.echo(f"mamfed {__version__}")
        raise typer.Exit


VERSION_OPTION = typer.Option(
    "--version", callback=show_version, is_eager=True, help="Print the version and exit."
)


def _check_folder() -> None:
    """Refuse to start in a removed folder: MKL and others would exit without a message."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MamfedError("the current folder was removed; change to another one") from None


def _call(app: typer.Typer) -> None:
    """Call a command; raise KeyboardInterrupt on Ctrl-C, for which typer exits silently."""
    try:
        click_command(app)()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def run(app: typer.Typer, role: str) -> None:
    """Run a command; an error is one line on stderr and an exit code of its own.

    Args:
        app: The command.
        role: The extra with the packages of its role (``optional_packages.OF_ROLE``).

    Exit codes: 0 success, 2 a mistake on the command line, 130 interrupted, and those of
    :mod:`mamfed_common.errors`.
    """
    set_environment()
    tolerate_closed_streams()
    try:
        _check_folder()
        _call(app)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = extra_of(missing, role)
        if extra is None:
            raise
        print(f"error: {missing_line(missing, extra)}", file=sys.stderr)
        sys.exit(MamfedError.exit_code)
    except MamfedError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full or read-only disk, a file in a folder's place
        print(f"error: {os_error_line(error)}", file=sys.stderr)
        sys.exit(OutputError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
