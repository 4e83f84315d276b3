"""The command ``password`` of a program with a page: who may sign in from other machines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

LONGEST_INPUT = 4096


def register_password(app: typer.Typer, program: str) -> None:
    """Add ``password`` to a program.

    Args:
        app: Its commands.
        program: Its name, such as ``mamfed-client``.
    """

    @app.command(
        help="Set a person's password for the page; it is asked for, or read from standard input."
        f"\n\n{program} password passwords anna"
    )
    def password(
        file: Annotated[
            Path, typer.Argument(help="The password file, created if necessary (0600).")
        ],
        name: Annotated[str, typer.Argument(help="Who may sign in.")],
    ) -> None:
        from mamfed_common.web.passwords import set_password

        if sys.stdin.isatty():
            secret = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        else:
            secret = sys.stdin.readline(LONGEST_INPUT).rstrip("\n")
        is_new = set_password(file, name, secret)
        typer.echo(f"{file}: {name} {'added' if is_new else 'has a new password'}")
