"""Options that several commands of ``mamfed-client`` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_client.imaging.rejections import ALLOWABLE, Reason
from mamfed_common.runtime.completion import file_name, names_in
from mamfed_common.runtime.terminal import Format

if TYPE_CHECKING:  # `--help` must not load what the commands need
    from mamfed_client.site.settings import SiteHome

Home = Annotated[
    Path,
    typer.Option(help="This site's home.", envvar="MAMFED_SITE_HOME", file_okay=False),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="How to print the result.")]
Contact = Annotated[
    str, typer.Option(help="Contact for the coordinator's phone call; asked for if omitted.")
]

Folder = Annotated[
    Path,
    typer.Argument(help="A data set, or any folder that contains DICOM files.", exists=True),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Layout of the folder: labels, inbreast, cbis-ddsm, vindr-mammo, cdd-cesm, "
        "mini-mias or dicom.",
        show_default="auto-detected",
    ),
]


def _allowable(reasons: list[Reason] | None) -> list[Reason] | None:
    """Refuse a reason that no option can lift, such as ``truncated``."""
    for reason in reasons or ():
        if reason not in ALLOWABLE:
            raise typer.BadParameter(
                f"files rejected as {reason.value!r} cannot be used; use one of "
                f"{', '.join(ALLOWABLE)}"
            )
    return reasons


Allow = Annotated[
    list[Reason] | None,
    typer.Option(
        help="Do not reject files for this reason, e.g. 'secondary capture'; may be repeated.",
        metavar="REASON",
        show_choices=False,
        callback=_allowable,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        help="Annotation class that counts as malignant, as named in the file; may be repeated.",
        metavar="NAME",
    ),
]
MaskValues = Annotated[
    list[str] | None,
    typer.Option(
        help="Mask pixel value that counts as malignant, e.g. 2 or '#ff0000'; may be repeated.",
        metavar="VALUE",
    ),
]
Listed = Annotated[
    bool,
    typer.Option("--list", help="List every file with its status; printed on your screen only."),
]
ForecastOnly = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, without opening an image.")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="Key file of encrypted prepared folders.")
]


class ModelChoice(StrEnum):
    """One of the two models that a site keeps of a run."""

    SHARED = "shared"
    PERSONAL = "personal"


CheckpointFile = Annotated[
    Path | None,
    typer.Option(help="A run's checkpoint, e.g. runs/demo/checkpoints/best.safetensors."),
]
ModelOfHome = Annotated[
    ModelChoice | None,
    typer.Option(
        help="Instead of --checkpoint: the shared or the personal model that this site keeps."
    ),
]
Norms = Annotated[
    str | None,
    typer.Option(
        help="For a checkpoint with norms by group: the group whose norms to use, or average."
    ),
]
Run = Annotated[
    str,
    typer.Option(
        help="With --model: name of the run, see mamfed-client models list.",
        show_default="the latest",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Lowest probability at which a pixel is marked.",
        show_default="from the checkpoint, else its plan",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]

PLANS = names_in("plans/*.yaml", file_name)
"""Completes the hashes of plans."""
PlanName = Annotated[
    str,
    typer.Argument(
        help="The plan's SHA-256, or a unique prefix of it; or its file if the plan has not "
        "arrived yet.",
        autocompletion=PLANS,
    ),
]


def checked_home(path: Path) -> SiteHome:
    """Return a site's home.

    Raises:
        SetupError: The folder is not a site's home.
    """
    from mamfed_client.site.settings import SiteHome, check_home

    home = SiteHome(path)
    check_home(home)
    return home
