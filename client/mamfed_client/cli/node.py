"""``mamfed-client preflight``, ``start`` and ``status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_client.cli.options import Home, OutputFormat
from mamfed_common.runtime.terminal import Format, console

if TYPE_CHECKING:
    from mamfed_client.site.settings import SiteHome
    from mamfed_common.plan import TrainingPlan

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

HealthOnly = Annotated[
    bool,
    typer.Option(
        "--health",
        help="Print only the health; exit code 0 working, 20 waiting, 21 refused, 22 unreachable, "
        "23 not running.",
    ),
]


Page = Annotated[
    bool,
    typer.Option("--dashboard", help="Serve the site's page as well, see mamfed-client dashboard."),
]


def start(home: Home = Path("."), page: Page = False) -> None:
    """Take part: connect to the coordinator and train when asked, until stopped."""
    from mamfed_client.node.supervisor import run_site
    from mamfed_client.site.settings import SiteHome

    raise SystemExit(run_site(SiteHome(home), console(), page=page))


def status(
    home: Home = Path("."), printed: OutputFormat = Format.TEXT, health: HealthOnly = False
) -> None:
    """Show the state of this site, whether it is running or not."""
    from mamfed_client.node.overview import overview
    from mamfed_client.site.settings import SiteHome

    site = overview(SiteHome(home))
    if health:
        typer.echo(site.health.words)
        raise typer.Exit(site.health)
    if printed is Format.JSON:
        typer.echo(json.dumps(site.model_dump(mode="json"), indent=2))
        return
    for line in site.lines():
        typer.echo(line)


def preflight(
    home: Home = Path("."),
    plan: Annotated[
        Path | None,
        typer.Option(help="Plan to check for.", show_default="the newest plan that arrived"),
    ] = None,
    skip_training: Annotated[
        bool, typer.Option("--skip-training", help="Skip the trial training step.")
    ] = False,
    printed: OutputFormat = Format.TEXT,
) -> None:
    """Check whether this site can take part; exit code 9 if a check fails."""
    from mamfed_client.node.preflight import choose_plan
    from mamfed_client.site.settings import SiteHome
    from mamfed_common.plan import TrainingPlan, read_plan

    site = SiteHome(home)
    chosen = read_plan(plan) if plan else choose_plan(site)
    if chosen is None:
        console().print("no plan has arrived and --plan names none: checking for the default plan")
        chosen = TrainingPlan()
    run_preflight(site, chosen, train=not skip_training, printed=printed)


def run_preflight(
    site: SiteHome, plan: TrainingPlan, *, train: bool = True, printed: Format = Format.TEXT
) -> None:
    """Check whether a site can follow a plan, and print each result as it comes.

    Args:
        site: The site's home.
        plan: The plan to check for.
        train: Whether to try a training step of each stage.
        printed: As lines, or as one JSON document at the end.

    Raises:
        SetupError: A check failed.
    """
    from mamfed_client.node.preflight import Check, Preflight, refuse_failed

    checks: list[Check] = []
    for check in Preflight(site, plan, train=train).run():
        checks.append(check)
        if printed is Format.TEXT:
            console().print(check.outcome, style=COLOURS[check.outcome], end="")
            console().print(f"  {check.name}: {check.words}")
    if printed is Format.JSON:
        body = {"plan_sha256": plan.sha256(), "checks": [check._asdict() for check in checks]}
        typer.echo(json.dumps(body, indent=2))
    refuse_failed(checks)


def register(app: typer.Typer) -> None:
    """Add the commands to ``mamfed-client``."""
    for command in (preflight, start, status):
        app.command()(command)
