"""``mamfed-simulate playground``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import Format, console
from mamfed_simulations.cli.options import Output

if TYPE_CHECKING:
    from mamfed_simulations.playground.play import Started

Out = Annotated[Path, typer.Option(help="Folder of everything: homes, phantoms, plans, logs.")]
Rounds = Annotated[int, typer.Option(min=1, max=200, help="Rounds of stage 2; each takes seconds.")]
SetupOnly = Annotated[
    bool, typer.Option("--setup-only", help="Set all up, print the commands, start nothing.")
]
Browser = Annotated[
    bool | None,
    typer.Option(
        "--open/--no-open",
        help="Open the pages in this machine's browser.",
        show_default="if there is a display",
    ),
]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop once the run has ended.")]


def playground(
    out: Out = Path("runs/playground"),
    rounds: Rounds = 12,
    setup_only: SetupOnly = False,
    browser: Browser = None,
    until_end: UntilEnd = False,
    output: Output = Format.TEXT,
) -> None:
    """Set up a whole federation on this machine to play with, and open its pages.

    A coordinator and three hospitals with phantoms of three vendors, as real processes over TLS,
    enrolled, with a small plan approved and a page each. Ctrl-C ends all of it; the same command
    goes on with the run, or begins the next one. Needs about 4 GB of memory.

    Example: mamfed-simulate playground --rounds 20
    """
    from mamfed_simulations.playground.play import alone, play, prepare, typed

    screen = console()

    def tell(started: Started) -> None:
        _print_started(started, output)
        if browser or (browser is None and _has_display()):
            import webbrowser

            for address in started.pages.values():
                webbrowser.open(address)

    with alone(out) as layout:
        ran = prepare(layout, rounds, screen.print)
        commands = [*ran, *typed(layout)]
        if setup_only:
            _print_setup(layout.path, commands, output)
            return
        play(layout, screen.print, tell, until_end=until_end)
    screen.print(f"everything lies in {layout.path}: logs/ has what each command said")
    screen.print("these commands did it; type them yourself to learn them:")
    for command in commands:
        screen.print(f"  {command}")


def _print_setup(folder: Path, commands: list[str], output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps({"folder": str(folder), "commands": commands}, indent=2))
        return
    typer.echo(f"{folder} is ready; start each in a terminal of its own:")
    for command in commands:
        typer.echo(f"  {command}")


def _print_started(started: Started, output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps({**started._asdict(), "folder": str(started.folder)}))
        sys.stdout.flush()
        return
    typer.echo(f"run {started.run} in {started.folder}; each address opens its page once:")
    for role, address in started.pages.items():
        typer.echo(f"  {role:<12} {address}")
    typer.echo("Ctrl-C ends everything")


def _has_display() -> bool:
    """Return whether a person looks at this machine's screen."""
    shown = (
        sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return bool(shown) and sys.stdout.isatty()
