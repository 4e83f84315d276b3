"""The command ``mamfed-client evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mamfed_client.cli.models import checkpoint_of
from mamfed_client.cli.options import (
    CheckpointFile,
    Device,
    Home,
    KeyFile,
    ModelOfHome,
    Norms,
    OutputFormat,
    Run,
    Threshold,
)
from mamfed_common.runtime.terminal import Format

Data = Annotated[Path, typer.Option(help="Folder of a data set, or a prepared folder.")]
Out = Annotated[Path, typer.Option(help="JSON file to write.")]
EvaluatedPart = Annotated[
    str, typer.Option(help="all, or the run's train, val or test patients; these need --site.")
]
SiteName = Annotated[
    str, typer.Option(help="Name of this data set in the run; it seeds the split.")
]
MinImages = Annotated[
    int | None,
    typer.Option(
        help="Smallest stratum to report, in images.", show_default="a policy's, 1", min=1
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Cache of prepared images.", show_default="~/.cache/mamfed"),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``mamfed-client``."""
    app.command()(evaluate)


def evaluate(
    data: Data,
    out: Out,
    checkpoint: CheckpointFile = None,
    model: ModelOfHome = None,
    home: Home = Path(),
    run: Run = "",
    part: EvaluatedPart = "all",
    site: SiteName = "",
    threshold: Threshold = None,
    norms: Norms = None,
    min_images: MinImages = None,
    device: Device = "auto",
    cache: Cache = None,
    key: KeyFile = None,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Score a model on a folder of mammograms: Dice, lesions found and false alarms, by group.

    The images stay where they are. The JSON names images as labels.csv does; keep it at your site.
    """
    from mamfed_client.evaluation.evaluate import EvaluationRequest, evaluate_folder

    request = EvaluationRequest(
        checkpoint=checkpoint_of(checkpoint, model, home, run),
        data=data,
        out=out,
        part=part,
        site=site,
        threshold=threshold,
        norms=norms,
        min_images=min_images,
        device=device,
        cache_dir=cache,
        key_path=key,
    )
    _print(evaluate_folder(request), output)


def _print(result: dict[str, Any], output: Format) -> None:
    from mamfed_client.evaluation.report import sentences, without_images

    if output is Format.JSON:
        typer.echo(json.dumps(without_images(result), indent=2))
    else:
        typer.echo("\n".join(sentences(result)))
