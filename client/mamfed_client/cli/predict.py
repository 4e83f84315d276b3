"""The command ``mamfed-client predict``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mamfed_client.cli.data import NOTHING_ACCEPTED, Allow, Layout, Listed, printable
from mamfed_client.cli.models import CheckpointFile, Home, ModelOfHome, Norms, Run, checkpoint_of
from mamfed_common.runtime.terminal import Format


class Encoding(StrEnum):
    """What a segmentation holds of each pixel."""

    BINARY = "binary"
    FRACTIONAL = "fractional"


def register(app: typer.Typer) -> None:
    """Add the command to ``mamfed-client``."""
    app.command()(predict)


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...", help="Files, folders with images below them, or prepared folders."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the predictions of this one model.")],
    checkpoint: CheckpointFile = None,
    model: ModelOfHome = None,
    home: Home = Path(),
    run: Run = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability from which a pixel is marked.",
            show_default="the checkpoint's, or its plan's",
        ),
    ] = None,
    norms: Norms = None,
    segmentation: Annotated[
        Encoding,
        typer.Option(help="binary: what is marked. fractional: every pixel's probability."),
    ] = Encoding.BINARY,
    row: Annotated[
        list[int] | None, typer.Option(help="Row of a prepared folder; may be repeated.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Images at once.", show_default="1 on a CPU, 4 on a GPU", min=1),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    layout: Layout = None,
    allow: Allow = None,
    key: Annotated[
        Path | None, typer.Option(help="Key file of encrypted prepared folders.")
    ] = None,
    listed: Listed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    output: Annotated[Format, typer.Option("--format", help="How to print the result.")] = (
        Format.TEXT
    ),
) -> None:
    """Run a model on your own studies: DICOM segmentations, pictures, and a page a study.

    Research use only. Start with OUT/index.html; OUT/predictions.json has all figures. Results name
    patients and files: keep them where the images may be. An interrupted call goes on where it was.

    mamfed-client predict study/ --checkpoint best.safetensors --out predictions/

    mamfed-client predict study/ --home site --model personal --out predictions/

    Ends with exit code 3 where no image can be used.
    """
    from mamfed_client.prediction.predict import Request, predict_images

    request = Request(
        checkpoint=checkpoint_of(checkpoint, model, home, run),
        inputs=tuple(inputs),
        out=out,
        threshold=threshold,
        norms=norms,
        encoding=segmentation.value,
        batch=batch,
        device=device,
        rows=frozenset(row or ()),
        layout=layout,
        allow=frozenset(allow or ()),
        key_path=key,
        names_patients=_may_name_patients(home),
    )
    document = predict_images(request, dry_run=dry_run)
    if output is Format.JSON:
        typer.echo(json.dumps(document if listed else without_images(document), indent=2))
    else:
        typer.echo("\n".join([*sentences(document), *(_lines(document) if listed else ())]))
        if not dry_run:
            typer.echo(f"open {out / 'index.html'}")
    if not dry_run and not document["images"]:
        raise typer.Exit(NOTHING_ACCEPTED)


def _may_name_patients(home: Path) -> bool:
    """Tell whether the site's policy lets pages name patients; outside of a home they do not."""
    from mamfed_client.site.settings import SiteHome, load_site_settings

    site = SiteHome(home)
    return site.settings_path.exists() and load_site_settings(site).policy.pages_name_patients


def without_images(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what names files."""
    return {key: value for key, value in document.items() if not key.startswith("per_")}


def sentences(document: dict[str, Any]) -> list[str]:
    """Say in words what was done, or what would be."""
    model = document["model"]
    said = [
        f"model {model['weights_sha256'][:12]}, {_whose(model)}"
        f"{model['stage']} round {model['server_round']}, "
        f"marks from probability {model['threshold']:g} ({model['threshold_from']})"
    ]
    if document.get("dry_run"):
        said.append(
            f"would try {document['to_predict']} of {document['offered']} images; "
            "none has been decoded, so some may prove unusable"
        )
    else:
        said.append(
            f"{document['predicted']} predicted now; {document['images']} here in "
            f"{document['studies']} {'study' if document['studies'] == 1 else 'studies'}: "
            f"{document['with_lesions']} with regions marked, "
            f"{document['without_lesions']} without"
        )
    said += [f"{document[key]} {words}" for key, words in ASIDES.items() if document.get(key)]
    said += [f"{count} cannot be used: {why}" for why, count in document["rejected"].items()]
    missing = document.get("without_segmentation", {})
    said += [f"{count} without a DICOM segmentation: {why}" for why, count in missing.items()]
    left_out = document.get("header_left_out", {})
    said += [f"{count} segmentations without the source's {why}" for why, count in left_out.items()]
    said += [f"look: {line}" for line in document.get("contradictions", ())]
    if document.get("side_unknown"):
        said.append(f"{document['side_unknown']} of unknown side, shown as in the file")
    return [*said, "research use only"]


def _whose(model: dict[str, Any]) -> str:
    return f"personal of {model['personal_of']}, " if "personal_of" in model else ""


ASIDES = {
    "done_before": "done before, nothing of them has changed since",
    "outdated": "done before but made anew: table or file name says other things of them now",
    "replaced": "done before but out of date: their files hold other images or are rejected now",
    "of_earlier_calls": "here of earlier calls, not offered in this one",
    "duplicates": "offered twice",
    "contradicted": "offered twice with unlike rows or names: the first one counts",
    "own_files": "files of earlier predictions among the inputs passed over",
}


def _lines(document: dict[str, Any]) -> list[str]:
    """Name every image and what became of it."""
    lines = [
        f"{printable(r['source'])}\t{len(r['lesions'])} marked\t{r['score']:.3f}\t{r['image']}"
        for r in document.get("per_image", ())
    ]
    return lines + [
        f"{printable(r['source'])}\t{r['reason']}: {printable(r['detail'])}"
        for r in document.get("per_rejected", ())
    ]
