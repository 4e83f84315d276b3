"""``mamfed-server start | status | runs | stop | resume``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_server.cli.dashboard import PORT, SECONDS, Port
from mamfed_server.cli.options import RUNS, Home, Output
from mamfed_server.service.status_file import health_of

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan
    from mamfed_server.settings import ServerHome

HealthOnly = Annotated[
    bool,
    typer.Option(
        "--health",
        help="Print one word; exit code 0: working, 20: waiting for sites, 23: not running, "
        "24: paused until sites come back.",
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(help="The run's name, as mamfed-server runs lists it.", autocompletion=RUNS),
]


def start(
    plan: Annotated[Path, typer.Option(help="The training plan, a YAML file.")],
    run: Annotated[
        str, typer.Option(help="Name of the run.", show_default="the plan's file name and hash")
    ] = "",
    home: Home = Path("."),
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything and print what would be done."),
    ] = False,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Serve the page of mamfed-server dashboard too, on this machine, until the run "
            "ends.",
        ),
    ] = False,
    dashboard_port: Port = PORT,
) -> None:
    """Run a federation to its end: listen for sites, train both stages, restart after a crash.

    With the same plan, start resumes the run from its last good checkpoint. Exit code 0: the run
    finished or was stopped; 7: it failed, and its checkpoints are kept.
    """
    from mamfed_common.plan import read_plan
    from mamfed_server.settings import ServerHome

    chosen = read_plan(plan)
    port = dashboard_port if dashboard else None
    _start(ServerHome(home), chosen, run or f"{plan.stem}-{chosen.sha256()[:8]}", dry_run, port)


def resume(run: RunArgument, home: Home = Path(".")) -> None:
    """Resume a run that was stopped, crashed or failed, from its last good checkpoint."""
    from mamfed_common.plan import read_plan

    server_home = _existing_home(home)
    plan = read_plan(_run_folder(server_home.runs, run) / "plan.yaml")
    _start(server_home, plan, run, dry_run=False)


def stop(home: Home = Path(".")) -> None:
    """Stop the server of this home; mamfed-server resume continues its run later."""
    from mamfed_common.runtime.lock import stop as stop_holder

    stopped = stop_holder(_existing_home(home).lock)
    typer.echo("no server is running here" if stopped is None else "stopped")


def status(
    home: Home = Path("."),
    output: Output = Format.TEXT,
    health: HealthOnly = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep the status on screen, site by round; Ctrl-C ends it."),
    ] = False,
) -> None:
    """Show what the server is doing: the run, its round, its expected end, who is connected.

    mamfed-server status --watch
    """
    server_home = _existing_home(home)
    if health:
        found = health_of(server_home)
        typer.echo(found.words)
        raise typer.Exit(found)
    from mamfed_server.service import status as status_text

    if watch:
        from mamfed_server.service.watch import watch as keep_watching

        keep_watching(server_home)
        return
    now, at = status_text.read_status(server_home), datetime.now(UTC)
    if output is Format.JSON:
        typer.echo(json.dumps(status_text.document(now, at), indent=2))
        return
    for line in status_text.lines(now, at):
        typer.echo(line)


def runs(home: Home = Path("."), output: Output = Format.TEXT) -> None:
    """List the runs in this home: how each ended and how many rounds it completed."""
    from mamfed_server.run.overview import overview
    from mamfed_server.run.state import rounds_in_words
    from mamfed_server.service.status import NO_RUN

    rows = overview(_existing_home(home).runs)
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(NO_RUN)
    for row in rows:
        rounds = rounds_in_words(row["rounds"], row["rounds_planned"])
        dice = row["pooled_validation_dice"]
        result = "" if dice is None else f", validation Dice {dice:.3f}"
        reason = f" ({row['reason']})" if row["reason"] else ""
        doing = f" ({row['doing']})" if row["status"] == "running" else ""
        typer.echo(
            f"{row['run']}: {row['status']}{doing}, {rounds}{result}, "
            f"plan {row['plan_sha256'][:12] or 'unknown'}{reason}"
        )


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (start, resume, stop, status, runs):
        app.command()(command)


def _start(
    home: ServerHome, plan: TrainingPlan, run: str, dry_run: bool, port: int | None = None
) -> None:
    from mamfed_server.service.page_child import page_beside
    from mamfed_server.service.supervisor import check_start, run_server

    console = terminal.console()
    for line in check_start(home, plan, run):
        console.print(line)
    if dry_run:
        return
    page = None if port is None else page_beside(home, port, SECONDS, console)
    code = run_server(home, plan, run, console, page)
    if code:
        raise typer.Exit(code)


def _existing_home(path: Path) -> ServerHome:
    """Return the home at ``path``; refuse a folder without settings."""
    from mamfed_server.settings import ServerHome, check_is_home

    home = ServerHome(path)
    check_is_home(home)
    return home


def _run_folder(runs: Path, run: str) -> Path:
    from mamfed_common.errors import RunError

    folder = runs / run
    if Path(run).name != run or not (folder / "plan.yaml").is_file():
        raise RunError(f"{runs}: found no run {run!r}; list the runs with mamfed-server runs")
    return folder
