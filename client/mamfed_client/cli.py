"""``mamfed-client``: a hospital's command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_common import terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Take part in a mamfed federation. So far: score a model on your own mammograms.",
)


@app.callback()
def common(version: Annotated[bool, terminal.VERSION_OPTION] = False) -> None:
    """Take the options that come before a subcommand."""


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Option(help="A run's checkpoint, e.g. runs/demo/checkpoints/best.safetensors.")
    ],
    data: Annotated[Path, typer.Option(help="Folder with labels.csv, images and masks.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    part: Annotated[
        str, typer.Option(help="all, or the run's train, val or test patients (needs --site).")
    ] = "all",
    site: Annotated[
        str, typer.Option(help="What the run called this data; it seeds the split.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Where prepared images are kept. [default: ~/.cache/mamfed]")
    ] = None,
) -> None:
    """Score a model on a folder of mammograms: Dice, sensitivity, false-positive area, counts.

    The images stay where they are. The JSON names images as labels.csv does: keep it at your site.
    """
    from mamfed_client.evaluation import evaluate_folder

    evaluate_folder(checkpoint, data, out, part=part, site=site, device=device, cache_dir=cache)


def main() -> None:
    """Run ``mamfed-client``."""
    terminal.run(app)
