"""``mamfed-server start | status | runs | stop | resume``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_server.service.status_file import health_of

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan
    from mamfed_server.settings import ServerHome

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="MAMFED_SERVER_HOME", help="The coordinator's home, made by init."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="For people, or for scripts.")]
HealthOnly = Annotated[
    bool,
    typer.Option(
        "--health",
        help="Say one word; exit code 0 working, 20 waiting for sites, 23 not running.",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="The run's name, see mamfed-server runs.")]


def start(
    plan: Annotated[Path, typer.Option(help="The training plan, YAML.")],
    run: Annotated[
        str, typer.Option(help="Name of the run.", show_default="of the plan's file and hash")
    ] = "",
    home: HomeOption = Path("."),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")
    ] = False,
) -> None:
    """Run a federation to its end: listen for sites, train both stages, start again after a crash.

    Started again with the same plan, it goes on from the last good checkpoint. Exit code 0: the
    run finished, or was stopped. 7: it failed; its checkpoints are kept.
    """
    from mamfed_common.plan import read_plan
    from mamfed_server.settings import ServerHome

    chosen = read_plan(plan)
    _start(ServerHome(home), chosen, run or f"{plan.stem}-{chosen.sha256()[:8]}", dry_run)


def resume(run: RunArgument, home: HomeOption = Path(".")) -> None:
    """Go on with a run that was stopped, died or failed, from its last good checkpoint."""
    from mamfed_common.plan import read_plan

    place = _place(home)
    _start(place, read_plan(_run_folder(place.runs, run) / "plan.yaml"), run, dry_run=False)


def stop(home: HomeOption = Path(".")) -> None:
    """Stop the server that runs in this home; its run can go on later (resume)."""
    from mamfed_common.runtime.lock import stop as stop_holder

    stopped = stop_holder(_place(home).lock)
    typer.echo("no server runs here" if stopped is None else "stopped")


def status(
    home: HomeOption = Path("."),
    output: FormatOption = Format.TEXT,
    health: HealthOnly = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep showing it: sites by rounds; Ctrl-C ends."),
    ] = False,
) -> None:
    """Say what the server does now: the run, its round, its end, who is connected and who is not.

    mamfed-server status --watch
    """
    place = _place(home)
    if health:
        found = health_of(place)
        typer.echo(found.words)
        raise typer.Exit(found)
    from mamfed_server.service import status as shown

    now, at = shown.read_status(place), datetime.now(UTC)
    if watch:
        from mamfed_server.service.watch import watch as keep_watching

        keep_watching(place)
    elif output is Format.JSON:
        typer.echo(json.dumps(shown.document(now, at), indent=2))
    else:
        for line in shown.lines(now, at):
            typer.echo(line)


def runs(home: HomeOption = Path("."), output: FormatOption = Format.TEXT) -> None:
    """List the runs in this home: how each ended, and how far it came."""
    from mamfed_server.run.overview import overview
    from mamfed_server.run.state import rounds_in_words
    from mamfed_server.service.status import NO_RUN

    rows = overview(_place(home).runs)
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
    """Add these commands to the coordinator's."""
    for command in (start, resume, stop, status, runs):
        app.command()(command)


def _start(home: ServerHome, plan: TrainingPlan, run: str, dry_run: bool) -> None:
    from mamfed_server.service.supervisor import check_start, run_server

    shown = terminal.console()
    for line in check_start(home, plan, run):
        shown.print(line)
    if dry_run:
        return
    code = run_server(home, plan, run, shown)
    if code:
        raise typer.Exit(code)


def _place(home: Path) -> ServerHome:
    """Return the home, which a command that only looks needs as well: not another folder."""
    from mamfed_common.errors import SetupError
    from mamfed_server.settings import ServerHome

    place = ServerHome(home)
    if not place.settings_path.is_file():
        raise SetupError(
            f"{place.settings_path}: not found; make a coordinator's home by mamfed-server init, "
            "or name it by --home"
        )
    return place


def _run_folder(runs: Path, run: str) -> Path:
    from mamfed_common.errors import RunError

    folder = runs / run
    if Path(run).name != run or not (folder / "plan.yaml").is_file():
        raise RunError(f"{runs}: no run {run!r} there; mamfed-server runs lists them")
    return folder
