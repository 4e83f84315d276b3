"""Options that several commands of ``mamfed-client`` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import Format

if TYPE_CHECKING:  # `--help` must not load what the commands need
    from mamfed_client.site.settings import SiteHome

Home = Annotated[
    Path,
    typer.Option(help="This site's home.", envvar="MAMFED_SITE_HOME", file_okay=False),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def checked_home(path: Path) -> SiteHome:
    """Return a site's home.

    Raises:
        SetupError: The folder is not a site's home.
    """
    from mamfed_client.site.settings import SiteHome, check_home

    home = SiteHome(path)
    check_home(home)
    return home
