"""Options that several commands of ``mamfed-simulate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.terminal import Format

MOST_WORKERS = 1024

PlanFile = Annotated[
    Path | None, typer.Option(help="Training plan.", show_default="see mamfed-simulate plan")
]
Size = Annotated[int | None, typer.Option(help="Side of the square images, pixels.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each, with seeds 0, 1, ...")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the data, say what would be done, and stop.")
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


def number_of_workers(text: str) -> int | None:
    """Read ``--workers``; None for auto."""
    if text == "auto":
        return None
    if not (text.isdecimal() and 1 <= int(text) <= MOST_WORKERS):
        raise typer.BadParameter(f"--workers {text!r}: expected auto, or 1 to {MOST_WORKERS}")
    return int(text)


def site_folders(sites: list[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` options; the same name or a malformed one is a usage error."""
    from mamfed_common.documents import check_name
    from mamfed_common.errors import SetupError

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
