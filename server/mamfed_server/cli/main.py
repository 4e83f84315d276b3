"""``mamfed-server``: the coordinator's command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_server.cli import dashboard, init, notify, run, sites
from mamfed_server.cli import export as export_cli
from mamfed_server.cli import survey as survey_cli
from mamfed_server.cli.options import RUNS, Home, Output

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Coordinate a mamfed federation: approve sites, run a training plan, read the results.",
)


app.command()(init.init)
app.add_typer(sites.app, name="sites")
app.add_typer(notify.app, name="notify")


@app.callback()
def common(version: Annotated[bool, terminal.VERSION_OPTION] = False) -> None:
    """Handle the options that come before a subcommand."""


@app.command()
def check(
    plan: Annotated[Path, typer.Argument(help="The training plan, a YAML file.")],
    home: Home = Path("."),
    whole: Annotated[
        bool, typer.Option("--whole", help="Print the full plan as YAML, including defaults.")
    ] = False,
    output: Output = Format.TEXT,
) -> None:
    """Check a training plan: what will happen, how long it takes, what it tolerates.

    Unknown keys, duplicate keys, values out of range and values that contradict each other are
    reported, and the exit code is 3. In a coordinator's home, the approved sites are counted too.
    """
    from mamfed_server.admission.registry import active_sites
    from mamfed_server.report.plan_page import page
    from mamfed_server.run.plan_checks import read_new_plan
    from mamfed_server.settings import ServerHome

    checked, server_home = read_new_plan(plan), ServerHome(home)
    is_home = server_home.settings_path.is_file()
    if output is Format.JSON:
        document = {"plan": checked.model_dump(mode="json"), "plan_sha256": checked.sha256()}
        typer.echo(json.dumps(document, indent=2))
    elif whole:
        typer.echo(f"{checked.to_yaml()}# plan_sha256: {checked.sha256()}")
    else:
        typer.echo(f"{plan} is valid, plan {checked.sha256()}")
        sites = active_sites(server_home) if is_home else None
        for line in page(checked, sites, server_home.runs if is_home else None):
            typer.echo(line)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder or name.", autocompletion=RUNS)],
    home: Home = Path("."),
    output: Output = Format.TEXT,
) -> None:
    """Show the state of a run: its rounds, its results, and which sites are missing and why."""
    from mamfed_server.report.run_text import lines
    from mamfed_server.run.run_choice import find_run
    from mamfed_server.run.state import run_status_of

    status = run_status_of(find_run(run, home / "runs"))
    if output is Format.JSON:
        document = status.summary or {"status": str(status.state), "reason": status.reason}
        typer.echo(json.dumps(document, indent=2))
        return
    for line in lines(status):
        typer.echo(line)


@app.command()
def report(
    run: Annotated[
        str,
        typer.Argument(
            help="Folder or name of a run, federated or simulated.", autocompletion=RUNS
        ),
    ],
    home: Home = Path("."),
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write.", show_default="report.html in the run folder"),
    ] = None,
    output: Output = Format.TEXT,
) -> None:
    """Write a run's report: the plan, who took part and who did not, curves and tables.

    The report is one HTML file that needs no network. It also covers a run that is still running
    or has failed.

    mamfed-server report first
    """
    from mamfed_server.report.page import lines_of, report_run
    from mamfed_server.run.run_choice import find_run

    folder = find_run(run, home / "runs")
    page = report_run(folder, out)
    terminal.print_lines(lines_of(folder))
    typer.echo(json.dumps({"report": str(page)}, indent=2) if output is Format.JSON else page)


run.register(app)
dashboard.register(app)
app.command()(export_cli.export)
app.command()(survey_cli.survey)


def main() -> None:
    """Run ``mamfed-server``."""
    terminal.run(app, "report")
