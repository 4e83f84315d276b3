"""``mamfed-client preflight``, ``start`` and ``status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime.terminal import Format, console

Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="MAMFED_SITE_HOME", help="The site's home, made by mamfed-client init."
    ),
]
Printed = Annotated[Format, typer.Option("--format", help="How to print the result.")]

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

HealthOnly = Annotated[
    bool,
    typer.Option(
        "--health",
        help="Say one word; exit code 0 working, 20 waiting, 21 refused, 22 unreachable, 23 not "
        "running.",
    ),
]


def start(home: Home = Path(".")) -> None:
    """Take part: talk to the coordinator and train when asked, until stopped."""
    from mamfed_client.node.supervisor import run_site
    from mamfed_client.site.settings import SiteHome

    raise SystemExit(run_site(SiteHome(home), console()))


def status(
    home: Home = Path("."), printed: Printed = Format.TEXT, health: HealthOnly = False
) -> None:
    """Say how this site is doing, whether it runs or not."""
    from mamfed_client.node.overview import overview
    from mamfed_client.site.settings import SiteHome

    found = overview(SiteHome(home))
    if health:
        typer.echo(found.health.words)
        raise typer.Exit(found.health)
    if printed is Format.JSON:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    for line in found.lines():
        typer.echo(line)


def preflight(
    home: Home = Path("."),
    plan: Annotated[
        Path | None,
        typer.Option(help="Plan to be ready for.", show_default="the newest one that came"),
    ] = None,
    skip_training: Annotated[
        bool, typer.Option("--skip-training", help="Try no training step.")
    ] = False,
    printed: Printed = Format.TEXT,
) -> None:
    """Check whether this site can take part; exit code 9 where something fails."""
    from mamfed_client.node.preflight import Check, Preflight, choose_plan, refuse_failed
    from mamfed_client.site.settings import SiteHome
    from mamfed_common.plan import TrainingPlan, read_plan

    site = SiteHome(home)
    screen = console()
    wanted = read_plan(plan) if plan else choose_plan(site)
    if wanted is None:
        screen.print("no plan has come and none is named by --plan: checked for the default plan")
        wanted = TrainingPlan()
    found: list[Check] = []
    for check in Preflight(site, wanted, train=not skip_training).run():
        found.append(check)
        if printed is Format.TEXT:
            colour = COLOURS[check.outcome]
            screen.print(check.outcome, style=colour, end="")
            screen.print(f"  {check.name}: {check.words}")
    if printed is Format.JSON:
        body = {"plan_sha256": wanted.sha256(), "checks": [check._asdict() for check in found]}
        typer.echo(json.dumps(body, indent=2))
    refuse_failed(found)


def register(app: typer.Typer) -> None:
    """Add the commands to ``mamfed-client``."""
    for command in (preflight, start, status):
        app.command()(command)
