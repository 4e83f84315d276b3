"""``mamfed-client dashboard`` and ``mamfed-client password``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mamfed_client.cli.options import Home, OutputFormat, checked_home
from mamfed_common.runtime.terminal import Format, console
from mamfed_common.web.password_command import register_password

LOCK = ".dashboard.lock"

Predictions = Annotated[
    list[Path] | None,
    typer.Option(help="Folder that predict wrote, to show its studies; may be repeated."),
]
CheckPages = Annotated[
    list[Path] | None,
    typer.Option("--check-page", help="Page of data check --html to link; may be repeated."),
]


def dashboard(
    home: Home = Path("."),
    predictions: Predictions = None,
    check_pages: CheckPages = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8788,
    host: Annotated[
        str, typer.Option(help="Address; any but loopback needs --cert, --key, --password-file.")
    ] = "127.0.0.1",
    cert: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Who may sign in; mamfed-client password writes it.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in this machine's browser.")
    ] = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Show this site live in a browser: its data, plans, work, and everything that left.

    You can approve and refuse plans there. The page is on this machine only, behind an address that
    opens it once; it shows no image unless you name pages that do. Ctrl-C ends it.
    """
    import signal
    import sys

    from mamfed_client.dashboard.pages import SitePages
    from mamfed_client.dashboard.snapshot import SiteReader
    from mamfed_client.dashboard.studies_view import check_checks, check_predictions
    from mamfed_client.site.settings import load_site_settings
    from mamfed_common.runtime.lifeline import hold_lifeline
    from mamfed_common.runtime.lock import exclusive_lock
    from mamfed_common.web.serving import Listen, serve

    is_child = hold_lifeline()  # of mamfed-client start --dashboard
    site = checked_home(home)
    name = load_site_settings(site).name
    check_predictions(predictions or ())
    check_checks(check_pages or ())
    shown = SitePages(SiteReader(site, predictions or ()), name, check_pages or ())

    def say(address: str) -> None:
        if is_child:
            typer.echo(f"page: {address.partition('?')[0]}")  # its token stays out of the log
        elif output is Format.JSON:
            typer.echo(json.dumps({"address": address}))
        else:
            typer.echo(f"open {address}")
            console().print("it opens the page once; the next address is in dashboard.url")
        if browser:
            import webbrowser

            webbrowser.open(address)

    # uvicorn raises the signal again once it has ended, which would skip what follows.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listen = Listen(host, port, password_file, cert, key)
    with exclusive_lock(site.path / LOCK, "this site's page", leaves_file=False):
        serve(shown.pages, shown.routes(), listen, site.path, say)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(dashboard)
    register_password(app, "mamfed-client")
