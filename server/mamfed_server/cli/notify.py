"""``mamfed-server notify test``."""

from __future__ import annotations

from pathlib import Path

import typer

from mamfed_common.runtime.terminal import Format
from mamfed_server.cli.options import Home, Output

app = typer.Typer(no_args_is_help=True, help="Who is told while nobody looks.")


@app.callback()
def notify() -> None:
    """Who is told of a site gone, a failed round, an ended run (notify in server.yaml)."""


@app.command(name="test")
def try_channels(home: Home = Path("."), output: Output = Format.TEXT) -> None:
    """Send a test notice by each channel of notify in server.yaml, and say what happened.

    Exit code 0: all took it; 9: no channel is set, or a file of one cannot be used; 10: one failed.
    """
    from mamfed_common.notify.trying import try_all
    from mamfed_server.settings import ServerHome, load_settings

    settings = load_settings(ServerHome(home))
    try_all(settings.notify, settings.source(), home, "server.yaml", output)
