"""Options that several commands of ``mamfed-simulate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import Format

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan

MOST_WORKERS = 1024

PlanFile = Annotated[
    Path | None, typer.Option(help="Training plan.", show_default="see mamfed-simulate plan")
]
Size = Annotated[int | None, typer.Option(help="Side of the square images, pixels.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replaces a value of the plan, such as finetuning.rounds=20; repeat.",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each, with seeds 0, 1, ...")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all that is needed, say what would be done, and stop."),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out after its last round, with the same bits; other data, "
        "plan or options are refused.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="CPU threads a site. Same number, same bits.", show_default="all cores"
    ),
]
ArmThreads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads a site. Same number, same bits.",
        show_default="1 for arms of images up to 512 pixels on a CPU, else all cores",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Arms side by side, each in a process. auto: as cores and memory allow. "
        "Any number, same bits.",
    ),
]
Lighter = Annotated[
    bool,
    typer.Option(
        "--activation-checkpointing", help="Train in less memory, more slowly; the same result."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where prepared images are kept.", show_default="~/.cache/mamfed"),
]
Output = Annotated[Format, typer.Option("--format", help="What stdout gets at the end.")]


def chosen_plan(
    file: Path | None,
    size: int | None = None,
    seed: int | None = None,
    settings: list[str] | None = None,
) -> TrainingPlan:
    """Return the plan of ``--plan``, or the default, as the other options change it.

    Raises:
        PlanError: The file, or a value, cannot be used.
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
    """Read ``--workers``; None for auto."""
    if text == "auto":
        return None
    if not (text.isdecimal() and 1 <= int(text) <= MOST_WORKERS):
        raise typer.BadParameter(f"--workers {text!r}: expected auto, or 1 to {MOST_WORKERS}")
    return int(text)


def site_folders(sites: list[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` options; the same name or a malformed one is a usage error."""
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
