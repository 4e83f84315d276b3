"""What the three commands share: one-line errors, exit codes, version, the environment."""

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
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.optional_packages import extra_of, missing_line
from mamfed_common.runtime.streams import tolerate_closed_streams
from mamfed_common.runtime.threads import wait_without_spinning

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Flower and Ray phone home unless told not to, before they are imported."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


class Screen(Console):
    """A console on which a text is shown as it is: no markup is read from it, none is wrapped.

    A path may hold brackets, and a line in a log file belongs to one event. What is to be styled
    says so by ``style``.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; texts as they are, tables and the like as Rich lays them out."""
        if all(isinstance(each, str) for each in objects):
            options = {"markup": False, "emoji": False, "soft_wrap": True, **options}
        super().print(*objects, **options)


def console() -> Screen:
    """Return the console for people: stderr, so that stdout holds results only."""
    return Screen(stderr=True, highlight=False)


def print_lines(notes: Iterable[str]) -> None:
    """Print sentences for people, each on a line of its own."""
    for note in notes:
        console().print(note)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back.

    Args:
        question: What is asked, on stderr.
        yes: The user has agreed already (``--yes``).

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
            "nobody answered, so nothing was changed; --yes answers without asking"
        ) from None
    if not agreed:
        raise MamfedError("not agreed, so nothing was changed")


def contact_of(given: str, question: str) -> str:
    """Return whom the other side phones: as it was given, or as the person at the terminal says.

    Where nobody sits there, none is given, and a line says what that costs.
    """
    if not given and sys.stdin.isatty():
        given = str(typer.prompt(f"{question} (name, number)", default="", err=True)).strip()
    if not given:
        console().print(
            "warning: no --contact: the other side is not told whom to phone to compare "
            "fingerprints"
        )
    return given


Advance = Callable[[int, int], None]
"""Takes how many more files are done, and how many of them were rejected."""


@contextmanager
def reading_progress(description: str, total: int) -> Iterator[Advance]:
    """Show files done, their rate, the time left and the rejects on stderr.

    Args:
        description: What the work is called; empty shows nothing.
        total: How many files there are.
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

        def advance(done: int, refused: int) -> None:
            nonlocal rejected, first
            rejected += refused
            first = bar.tasks[task].completed + done if first is None else first
            fresh = bar.tasks[task].completed + done - first
            rate = f"{fresh / max(monotonic() - started, 1e-3):.1f} files/s"
            bar.update(task, advance=done, rejected=rejected, rate=rate)

        yield advance


def set_environment() -> None:
    """Switch off telemetry and update checks, and spinning threads where the user has not chosen.

    To be called before Flower, Ray or torch is imported: they look once.
    """
    os.environ.update(ENVIRONMENT)
    wait_without_spinning()


def show_version(wanted: bool) -> None:
    """Print the version and end, where ``--version`` was given."""
    if wanted:
        typer.echo(f"mamfed {__version__}")
        raise typer.Exit


VERSION_OPTION = typer.Option(
    "--version", callback=show_version, is_eager=True, help="Print the version and exit."
)


def _check_folder() -> None:
    """Refuse to begin in a folder that is gone: MKL and others end the process without a reason."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MamfedError("the folder you are in was removed; change to another one") from None


def _leave_reading_to_us(command: click.Command) -> None:
    """Let unreadable paths through to who reads them: click's own words name no owner."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.readable = False
    for below in getattr(command, "commands", {}).values():
        _leave_reading_to_us(below)


def _call(app: typer.Typer) -> None:
    """Call a command; typer ends an interrupted one without a word."""
    command = typer.main.get_command(app)
    _leave_reading_to_us(command)
    try:
        command()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def run(app: typer.Typer, role: str) -> None:
    """Run a command: a mistake is one line on stderr and the exit code of its kind.

    Args:
        app: The command.
        role: The extra that brings the packages of its role (``extras.OF_ROLE``).

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
