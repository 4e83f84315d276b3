"""``mamfed-client``: the command line of a hospital."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mamfed_client.cli import audit, data, enrol, models, node, plan
from mamfed_client.cli import predict as prediction_cli
from mamfed_client.cli.models import CheckpointFile, ModelOfHome, Norms, Run
from mamfed_client.cli.options import Home
from mamfed_common.runtime import terminal

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Take part in a mamfed federation: check and prepare your mammograms, join, decide what "
    "may leave, train when asked, and see what left.",
)
app.add_typer(data.app, name="data")
enrol.register(app)
node.register(app)
app.add_typer(plan.app, name="plan")
app.add_typer(audit.app, name="audit")
app.add_typer(models.app, name="models")
prediction_cli.register(app)


@app.callback()
def common(version: Annotated[bool, terminal.VERSION_OPTION] = False) -> None:
    """Accept the options that precede a subcommand."""


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of a data set, or a prepared folder.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    checkpoint: CheckpointFile = None,
    model: ModelOfHome = None,
    home: Home = Path(),
    run: Run = "",
    part: Annotated[
        str, typer.Option(help="all, or the run's train, val or test patients; these need --site.")
    ] = "all",
    site: Annotated[
        str, typer.Option(help="Name of this data set in the run; it seeds the split.")
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Lowest probability at which a pixel is marked.",
            show_default="from the checkpoint, else its plan",
        ),
    ] = None,
    norms: Norms = None,
    min_images: Annotated[
        int | None,
        typer.Option(
            help="Smallest stratum to report, in images.", show_default="a policy's, 1", min=1
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Cache of prepared images.", show_default="~/.cache/mamfed"),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Key file of an encrypted folder.")] = None,
    output: Annotated[
        terminal.Format, typer.Option("--format", help="How to print the result.")
    ] = terminal.Format.TEXT,
) -> None:
    """Score a model on a folder of mammograms: Dice, lesions found and false alarms, by group.

    The images stay where they are. The JSON names images as labels.csv does; keep it at your site.
    """
    from mamfed_client.evaluation.evaluate import evaluate_folder
    from mamfed_client.evaluation.report import sentences, without_images

    result = evaluate_folder(
        models.checkpoint_of(checkpoint, model, home, run),
        data,
        out,
        part=part,
        site=site,
        threshold=threshold,
        norms=norms,
        min_images=min_images,
        device=device,
        cache_dir=cache,
        key_path=key,
    )
    if output is terminal.Format.JSON:
        typer.echo(json.dumps(without_images(result), indent=2))
    else:
        typer.echo("\n".join(sentences(result)))


def main() -> None:
    """Run ``mamfed-client``."""
    terminal.run(app, "client")
