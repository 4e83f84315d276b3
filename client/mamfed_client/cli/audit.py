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
    """Check every line and signature of the audit log; exit code 11 if one does not fit.

    Prints the last line's hash, and the heads that the coordinator countersigned: up to the last of
    them, the log was not rewritten since.
    """
    from mamfed_client.disclosure.audit_proofs import keys_of
    from mamfed_client.disclosure.audit_report import verify, vouched

    site = checked_home(home)
    summary = verify(site.audit, keys_of(site))
    if output is Format.JSON:
        keys = {"lines", "last_sha256", "unfinished_bytes", "proofs"}
        typer.echo(summary.model_dump_json(include=keys))
        return
    typer.echo(f"intact: {counted(summary.lines, 'line')}, last hash {summary.last_sha256}")
    typer.echo(vouched(summary))
    for head in summary.proofs.countersigned:
        typer.echo(f"countersigned: line {head.count}, {head.sha256[:12]}, at {head.time}")


@app.command()
def report(home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """Report what left this site: when, how much, for which plans, which values; and refusals."""
    from mamfed_client.disclosure.audit_proofs import keys_of
    from mamfed_client.disclosure.audit_report import sentences, verify

    site = checked_home(home)
    summary = verify(site.audit, keys_of(site))
    if output is Format.JSON:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(sentences(summary)))
