"""``mamfed-client notify test``."""

from __future__ import annotations

from pathlib import Path

import typer

from mamfed_client.cli.options import Home, OutputFormat
from mamfed_common.runtime.terminal import Format

app = typer.Typer(no_args_is_help=True, help="Who is told while nobody looks.")


@app.callback()
def notify() -> None:
    """Who is told of a plan that waits, a server gone, an ended run (notify in site.yaml)."""


@app.command(name="test")
def try_channels(home: Home = Path("."), printed: OutputFormat = Format.TEXT) -> None:
    """Send a test notice by each channel of notify in site.yaml, and say what happened.

    Exit code 0: all took it; 9: no channel is set, or a file of one cannot be used; 10: one failed.
    """
    from mamfed_client.site.settings import SiteHome, load_site_settings
    from mamfed_common.notify.trying import try_all

    settings = load_site_settings(SiteHome(home))
    try_all(settings.notify, settings.source(), home, "site.yaml", printed)
