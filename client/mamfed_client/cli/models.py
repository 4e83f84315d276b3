"""The commands of ``mamfed-client models``, and the model that other commands' options select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_client.cli.options import Home, ModelChoice, Norms, OutputFormat, checked_home
from mamfed_common.runtime.terminal import Format

app = typer.Typer(
    no_args_is_help=True,
    help="The models that this site keeps: each run's shared model, and the personal model adapted "
    "from it.",
)


@app.command("list")
def list_them(
    home: Home = Path(),
    output: OutputFormat = Format.TEXT,
) -> None:
    """List the runs whose models this site keeps, latest last, with each model's scores here."""
    import json

    from mamfed_client.models.model_list import list_models, sentences

    runs = list_models(checked_home(home).models)
    if output is Format.JSON:
        typer.echo(json.dumps([kept.model_dump(mode="json") for kept in runs], indent=2))
    else:
        typer.echo("\n".join(sentences(runs)))


@app.command()
def add(
    checkpoint: Annotated[
        Path, typer.Argument(help="The run's final checkpoint, from the coordinator.")
    ],
    run: Annotated[str, typer.Option(help="The coordinator's name for the run.")],
    home: Home = Path(),
    norms: Norms = None,
) -> None:
    """Add a run's final model that did not arrive, e.g. because this site was switched off.

    The site must have received its signed plan. Compare the SHA-256 with the coordinator's.
    """
    from mamfed_client.disclosure.plan_store import PlanStore
    from mamfed_client.models.model_store import add_model
    from mamfed_common.runtime.lock import home_lock

    site = checked_home(home)
    with home_lock(home):
        kept = add_model(site.models, checkpoint, run, norms, PlanStore(site.plans))
    typer.echo(f"kept: {kept.file('shared')}")
    typer.echo(f"SHA-256 of its weights: {kept.weights_sha256()}")


def checkpoint_of(checkpoint: Path | None, model: ModelChoice | None, home: Path, run: str) -> Path:
    """Return the file of the model that the options select.

    Raises:
        CheckpointError: The home has no such model, or its shared and personal model do not match.
        SetupError: ``home`` is not a site's home.
        BadParameter: The options select no model, or two.
    """
    if (checkpoint is None) == (model is None):
        found = "neither" if model is None else "both"
        raise typer.BadParameter(
            f"found {found}, expected one of --checkpoint FILE and --model shared or personal"
        )
    if checkpoint is not None:
        if run:
            raise typer.BadParameter("--run goes with --model only; --checkpoint names a file")
        return checkpoint
    assert model is not None
    from mamfed_client.models.model_store import find_model

    return find_model(checked_home(home).models, model.value, run)
