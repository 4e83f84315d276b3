"""The commands of ``mamfed-client audit``."""

from __future__ import annotations

from pathlib import Path

import typer

from mamfed_client.cli.options import Home, OutputFormat, checked_home
from mamfed_common.runtime.terminal import Format
from mamfed_common.runtime.wording import counted

app = typer.Typer(
    no_args_is_help=True,
    help="Verify the audit log of what left this site, or read it in words and numbers.",
)


@app.command()
def verify(home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """Check every line of the audit log; exit code 11 if one was changed, removed or added.

    Prints the last line's hash. Keep it elsewhere to detect later whether the log was rewritten.
    """
    from mamfed_client.disclosure.audit_report import verify

    summary = verify(checked_home(home).audit)
    if output is Format.JSON:
        typer.echo(summary.model_dump_json(include={"lines", "last_sha256", "unfinished_bytes"}))
    else:
        typer.echo(f"intact: {counted(summary.lines, 'line')}, last hash {summary.last_sha256}")


@app.command()
def report(home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """Report what left this site: when, how much, for which plans, which values; and refusals."""
    from mamfed_client.disclosure.audit_report import sentences, verify

    summary = verify(checked_home(home).audit)
    if output is Format.JSON:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(sentences(summary)))
