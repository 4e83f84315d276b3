"""Options that several commands of ``mamfed-simulate`` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import Format

if TYPE_CHECKING:
    from mamfed_client.preparation.site_data import Site
    from mamfed_common.plan import TrainingPlan

MAX_WORKERS = 1024

SiteFolders = Annotated[
    list[str],
    typer.Option(metavar="NAME=FOLDER", help="A site and its data folder; repeat per site."),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(help="Training plan (YAML).", show_default="see mamfed-simulate plan"),
]
Size = Annotated[
    int | None, typer.Option(help="Side of the square images in pixels; overrides the plan.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the plan, such as finetuning.rounds=20; repeatable.",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings per arm or row, with seeds 0, 1, ...")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all requirements, print the planned work, and stop."),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run in --out after its last round, with identical results. Different "
        "data, plan or options are refused.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads per site. The same number gives identical results.",
        show_default="all cores",
    ),
]
ArmThreads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads per site. The same number gives identical results.",
        show_default="1 on a CPU for several arms with images up to 512 pixels, else all cores",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Arms trained in parallel, each in its own process. auto: as many as cores and memory "
        "allow. The number does not affect results.",
    ),
]
Lighter = Annotated[
    bool,
    typer.Option(
        "--activation-checkpointing",
        help="Use less memory and more time in training; results are the same.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for prepared images.", show_default="~/.cache/mamfed"),
]
Output = Annotated[Format, typer.Option("--format", help="Format of the results on stdout.")]


def chosen_plan(
    file: Path | None,
    size: int | None = None,
    seed: int | None = None,
    settings: list[str] | None = None,
) -> TrainingPlan:
    """Return the plan of ``--plan``, or the default plan, with the other options applied.

    Raises:
        PlanError: The file or a value is invalid.
    """
    from mamfed_common.plan import TrainingPlan, read_plan
    from mamfed_common.plan.overrides import with_overrides

    chosen = TrainingPlan() if file is None else read_plan(file)
    if size is not None:
        chosen = chosen.changed("--size", image_size=size)
    if seed is not None:
        chosen = chosen.changed("--seed", seed=seed)
    return with_overrides(chosen, settings or ())


def number_of_workers(text: str) -> int | None:
    """Parse ``--workers``; None means auto."""
    if text == "auto":
        return None
    if not (text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise typer.BadParameter(f"--workers {text!r}: expected auto or 1 to {MAX_WORKERS}")
    return int(text)


def site_folders(sites: list[str]) -> dict[str, Path]:
    """Parse ``NAME=FOLDER`` options; a repeated or malformed name is a usage error."""
    from mamfed_common.errors import SetupError
    from mamfed_common.runtime.documents import check_name

    folders: dict[str, Path] = {}
    for text in sites:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder:
            raise typer.BadParameter(f"--site {text!r}: expected NAME=FOLDER")
        try:
            check_name(name, "--site")
        except SetupError as error:
            raise typer.BadParameter(str(error)) from None
        if name in folders:
            raise typer.BadParameter(f"--site {name!r} is given twice")
        folders[name] = Path(folder)
    return folders


def sites_in(folders: dict[str, Path], cache: Path | None) -> tuple[Site, ...]:
    """Return the sites of these folders, ordered by name, with one cache for prepared images."""
    from mamfed_client.preparation.sample_store import default_cache_dir
    from mamfed_client.preparation.site_data import Site

    cache_dir = cache or default_cache_dir()
    return tuple(
        Site(name, ((name, folder.absolute()),), cache_dir)
        for name, folder in sorted(folders.items())
    )


def print_json(output: Format, document: object) -> None:
    """Print a command's results as JSON if ``--format json`` asks for it."""
    if output is Format.JSON:
        typer.echo(json.dumps(document, indent=2))
