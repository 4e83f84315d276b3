"""What the three commands share: one-line errors, exit codes, version, the environment."""

from __future__ import annotations

import os
import sys
from enum import StrEnum

import click
import typer
from rich.console import Console

from mamfed_common import __version__
from mamfed_common.errors import MamfedError

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Flower and Ray phone home unless told not to, before they are imported."""


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


EXTRAS = {"pydicom": "client", "jinja2": "simulations", "matplotlib": "simulations", "ray": "ray"}
"""Modules that a role's extra brings."""


def console() -> Console:
    """Return the console for people: stderr, so that stdout holds results only."""
    return Console(stderr=True, highlight=False)


def set_environment() -> None:
    """Switch off telemetry and update checks; to be called before Flower or Ray is imported."""
    os.environ.update(ENVIRONMENT)


def show_version(wanted: bool) -> None:
    """Print the version and end, where ``--version`` was given."""
    if wanted:
        typer.echo(f"mamfed {__version__}")
        raise typer.Exit


VERSION_OPTION = typer.Option(
    "--version", callback=show_version, is_eager=True, help="Print the version and exit."
)


def run(app: typer.Typer) -> None:
    """Run a command: a mistake is one line on stderr and the exit code of its kind.

    Exit codes: 0 success, 2 a mistake on the command line, 130 interrupted, and those of
    :mod:`mamfed_common.errors`.
    """
    set_environment()
    try:
        app()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        if extra is None:
            raise
        print(f"error: this needs {error.name}: pip install 'mamfed[{extra}]'", file=sys.stderr)
        sys.exit(MamfedError.exit_code)
    except MamfedError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
