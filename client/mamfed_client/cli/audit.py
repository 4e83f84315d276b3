"""The commands of ``mamfed-client audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime.terminal import Format
from mamfed_common.runtime.wording import counted

app = typer.Typer(
    no_args_is_help=True,
    help="What left this site: check the record of it, or read it in words and numbers.",
)

Home = Annotated[
    Path,
    typer.Option(help="This site's home.", envvar="MAMFED_SITE_HOME", file_okay=False),
]
Printed = Annotated[Format, typer.Option("--format", help="How to print the result.")]


@app.command()
def verify(home: Home = Path(), output: Printed = Format.TEXT) -> None:
    """Check every line of the record; ends with exit code 11 where one was changed, cut or added.

    Prints the last line's hash: kept elsewhere, it shows later whether the record was rewritten.
    """
    from mamfed_client.disclosure.audit_report import verify

    summary = verify(_record_of(home))
    if output is Format.JSON:
        typer.echo(summary.model_dump_json(include={"lines", "last_sha256", "unfinished_bytes"}))
    else:
        typer.echo(f"whole: {counted(summary.lines, 'line')}, last hash {summary.last_sha256}")


@app.command()
def report(home: Home = Path(), output: Printed = Format.TEXT) -> None:
    """Say what left this site: when, how much, for which plans, which values, what was refused."""
    from mamfed_client.disclosure.audit_report import sentences, verify

    summary = verify(_record_of(home))
    if output is Format.JSON:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(sentences(summary)))


def _record_of(home: Path) -> Path:
    """Return the record of a site's home.

    Raises:
        SetupError: The folder is no site's home.
    """
    from mamfed_client.site.settings import SiteHome, check_home

    site = SiteHome(home)
    check_home(site)
    return site.audit
