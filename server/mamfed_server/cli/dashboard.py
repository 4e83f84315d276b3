"""``mamfed-server dashboard`` and ``mamfed-server password``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.web.password_command import register_password
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


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(dashboard)
    register_password(app, "mamfed-server")
