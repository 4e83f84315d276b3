"""The commands of ``mamfed-client models``, and the options by which others name a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime.terminal import Format

if TYPE_CHECKING:  # these bring torch, which a help text can do without
    from mamfed_client.site.settings import SiteHome

app = typer.Typer(
    no_args_is_help=True,
    help="The models that this site keeps: the shared one of each run, and its own made of it.",
)


class ModelChoice(StrEnum):
    """Which of a run's models."""

    SHARED = "shared"
    PERSONAL = "personal"


Home = Annotated[
    Path,
    typer.Option(help="This site's home.", envvar="MAMFED_SITE_HOME", file_okay=False),
]
CheckpointFile = Annotated[
    Path | None,
    typer.Option(help="A run's checkpoint, e.g. runs/demo/checkpoints/best.safetensors."),
]
ModelOfHome = Annotated[
    ModelChoice | None,
    typer.Option(
        help="Instead of --checkpoint: the model that this site keeps, shared or its own."
    ),
]
Norms = Annotated[
    str | None,
    typer.Option(
        help="Whose norms to use, of a checkpoint with norms by group; average: everyone's."
    ),
]
Run = Annotated[
    str,
    typer.Option(
        help="With --model: the run, as mamfed-client models list names it.",
        show_default="the latest",
    ),
]


@app.command("list")
def list_them(
    home: Home = Path(),
    output: Annotated[Format, typer.Option("--format", help="How to print the result.")] = (
        Format.TEXT
    ),
) -> None:
    """List the runs that this site keeps models of, the latest last, and what each scored here."""
    import json

    from mamfed_client.models.model_list import list_models, sentences

    runs = list_models(_home(home).models)
    if output is Format.JSON:
        typer.echo(json.dumps([kept.model_dump(mode="json") for kept in runs], indent=2))
    else:
        typer.echo("\n".join(sentences(runs)))


@app.command()
def add(
    checkpoint: Annotated[
        Path, typer.Argument(help="The run's final checkpoint, as the coordinator gave it to you.")
    ],
    run: Annotated[str, typer.Option(help="What the coordinator calls the run.")],
    home: Home = Path(),
    norms: Norms = None,
) -> None:
    """Keep a run's final model that did not come by itself, e.g. as this site was switched off.

    Its plan must have come to this site, signed. Compare the SHA-256 with the coordinator's.
    """
    from mamfed_client.disclosure.plan_store import PlanStore
    from mamfed_client.models.model_store import add_model
    from mamfed_common.runtime.lock import home_lock

    site = _home(home)
    with home_lock(home):
        kept = add_model(site.models, checkpoint, run, norms, PlanStore(site.plans))
    typer.echo(f"kept: {kept.file('shared')}")
    typer.echo(f"SHA-256 of its weights: {kept.weights_sha256()}")


def checkpoint_of(checkpoint: Path | None, model: ModelChoice | None, home: Path, run: str) -> Path:
    """Return the file of the model that the options name.

    Raises:
        CheckpointError: The home has no such model, or one that does not fit what is beside it.
        SetupError: ``home`` is no site's home.
        BadParameter: The options name none, or two.
    """
    if (checkpoint is None) == (model is None):
        found = "neither" if model is None else "both"
        raise typer.BadParameter(
            f"found {found}, expected one of --checkpoint FILE and --model shared or personal"
        )
    if checkpoint is not None:
        if run:
            raise typer.BadParameter("--run is of --model; --checkpoint names its file")
        return checkpoint
    assert model is not None
    from mamfed_client.models.model_store import find_model

    return find_model(_home(home).models, model.value, run)


def _home(path: Path) -> SiteHome:
    """Return a site's home.

    Raises:
        SetupError: The folder is none.
    """
    from mamfed_client.site.settings import SiteHome, check_home

    home = SiteHome(path)
    check_home(home)
    return home
