"""``mamfed-server dashboard`` and ``mamfed-server password``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_server.cli.options import Home

PORT = 8787
SECONDS = 2.0

Port = Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)]
Host = Annotated[
    str,
    typer.Option(
        help="Address of this machine to listen on. Any but loopback needs --cert, --key and "
        "--password-file."
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="Who may sign in; mamfed-server password writes it."),
]
Cert = Annotated[Path | None, typer.Option(help="TLS certificate with its chain, PEM.")]
Key = Annotated[Path | None, typer.Option(help="Private key of --cert, PEM.")]
Every = Annotated[
    float,
    typer.Option(
        "--every", help="Seconds between two readings while a page is open.", min=0.2, max=10
    ),
]


def dashboard(
    home: Home = Path("."),
    host: Host = "127.0.0.1",
    port: Port = PORT,
    password_file: PasswordFile = None,
    cert: Cert = None,
    key: Key = None,
    every: Every = SECONDS,
) -> None:
    """Serve a page that shows the run, and on which sites are approved and runs are started.

    It prints an address that opens the page once; the next one is in HOME/dashboard.url. The page
    is a process of its own that reads the home: it costs the run nothing. Ctrl-C ends it.

    From another machine: ssh -L 8787:127.0.0.1:8787 COORDINATOR
    """
    from mamfed_common.web.serving import Listen
    from mamfed_server.dashboard.application import serve_dashboard
    from mamfed_server.settings import ServerHome

    listen = Listen(host, port, password_file, cert, key)
    serve_dashboard(ServerHome(home), listen, every, typer.echo)


def password(
    file: Annotated[Path, typer.Argument(help="The password file, created if necessary (0600).")],
    name: Annotated[str, typer.Argument(help="Who may sign in.")],
) -> None:
    """Set a person's password for the page; it is asked for, or read from standard input.

    mamfed-server password passwords anna
    """
    import sys

    from mamfed_common.web.passwords import set_password

    if sys.stdin.isatty():
        secret = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        secret = sys.stdin.readline(4096).rstrip("\n")
    is_new = set_password(file, name, secret)
    typer.echo(f"{file}: {name} {'added' if is_new else 'has a new password'}")


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (dashboard, password):
        app.command()(command)
