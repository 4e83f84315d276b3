"""The command ``mamfed-client predict``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mamfed_client.cli.data import NOTHING_ACCEPTED
from mamfed_client.cli.models import checkpoint_of
from mamfed_client.cli.options import (
    Allow,
    CheckpointFile,
    Device,
    Home,
    KeyFile,
    Layout,
    Listed,
    ModelOfHome,
    Norms,
    OutputFormat,
    Run,
    Threshold,
)
from mamfed_client.cli.pacs import check_archive, raise_unsent, send_results
from mamfed_client.cli.pacs_words import sent_lines
from mamfed_common.runtime.terminal import Format
from mamfed_common.runtime.wording import printable


class Encoding(StrEnum):
    """Value that a DICOM segmentation stores for each pixel."""

    BINARY = "binary"
    FRACTIONAL = "fractional"


Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...", help="Files, folders to search for images, or prepared folders."
    ),
]
Out = Annotated[Path, typer.Option(help="Output folder; use one for each model.")]
Segmentation = Annotated[
    Encoding,
    typer.Option(help="binary: the marked pixels. fractional: each pixel's probability."),
]
As = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="KIND,...",
        help="DICOM objects for each image: seg (segmentation), sr (structured report, TID 1500), "
        "gsps (presentation state), sc (secondary capture), cad (Mammography CAD SR).",
    ),
]
Rows = Annotated[
    list[int] | None, typer.Option("--row", help="Row of a prepared folder; repeatable.")
]
Batch = Annotated[
    int | None,
    typer.Option(help="Images per batch.", show_default="1 on a CPU, 4 on a GPU", min=1),
]
Send = Annotated[
    bool,
    typer.Option(
        "--send",
        help="Send the DICOM objects to the archive that site.yaml names (--home); "
        "mamfed-client pacs send does so later.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command to ``mamfed-client``."""
    app.command()(predict)


def predict(
    inputs: Inputs,
    out: Out,
    checkpoint: CheckpointFile = None,
    model: ModelOfHome = None,
    home: Home = Path(),
    run: Run = "",
    threshold: Threshold = None,
    norms: Norms = None,
    segmentation: Segmentation = Encoding.BINARY,
    kinds: As = "seg",
    row: Rows = None,
    batch: Batch = None,
    device: Device = "auto",
    layout: Layout = None,
    allow: Allow = None,
    key: KeyFile = None,
    listed: Listed = False,
    send: Send = False,
    dry_run: DryRun = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Run a model on your own studies: DICOM segmentations, pictures, and a page per study.

    Research use only. Start with OUT/index.html; OUT/predictions.json has all figures. Results name
    patients and files; keep them where the images may be. Repeat an interrupted call to resume it.

    mamfed-client predict study/ --checkpoint best.safetensors --out predictions/

    mamfed-client predict study/ --home site --model personal --out predictions/

    mamfed-client predict study/ --checkpoint best.safetensors --out all/ --as seg,sr,gsps,sc,cad

    Exit code 3 if no image can be used, 10 if --send left an object unsent.
    """
    if send:
        check_archive(home)
    from mamfed_client.prediction.predict import PredictionRequest, predict_images

    request = PredictionRequest(
        checkpoint=checkpoint_of(checkpoint, model, home, run),
        inputs=tuple(inputs),
        out=out,
        threshold=threshold,
        norms=norms,
        encoding=segmentation.value,
        kinds=_kinds(kinds),
        batch=batch,
        device=device,
        rows=frozenset(row or ()),
        layout=layout,
        allow=frozenset(allow or ()),
        key_path=key,
        names_patients=_may_name_patients(home),
    )
    document = predict_images(request, dry_run=dry_run)
    sent = send_results(out, home, None) if send and not dry_run else None
    if sent is not None:
        document |= {"sent": sent.to_json()}
    _print(document, listed, output)
    if not dry_run:
        _finish(document, out, output)
    if sent is not None:
        raise_unsent(sent)


def _kinds(listed: str) -> tuple[str, ...]:
    """Return the kinds of objects that a list names, each once and in the order of making.

    Raises:
        typer.BadParameter: A kind is unknown.
    """
    from mamfed_client.prediction.kinds import FILES

    named = [word.strip().lower() for word in listed.split(",") if word.strip()]
    unknown = [word for word in named if word not in FILES]
    if unknown or not named:
        found = printable(unknown[0]) if unknown else "nothing"
        raise typer.BadParameter(f"found {found}, expected some of {','.join(FILES)}")
    return tuple(kind for kind in FILES if kind in named)


def _print(document: dict[str, Any], listed: bool, output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps(document if listed else without_images(document), indent=2))
    else:
        typer.echo("\n".join([*sentences(document), *(_lines(document) if listed else ())]))


def _finish(document: dict[str, Any], out: Path, output: Format) -> None:
    """Print the page to open; exit with code 3 if no image was predicted."""
    if output is Format.TEXT:
        typer.echo(f"open {out / 'index.html'}")
    if not document["images"]:
        raise typer.Exit(NOTHING_ACCEPTED)


def _may_name_patients(home: Path) -> bool:
    """Return whether the site's policy lets pages name patients; False outside a site's home."""
    from mamfed_client.site.settings import SiteHome, load_site_settings

    site = SiteHome(home)
    return site.settings_path.exists() and load_site_settings(site).policy.pages_name_patients


def without_images(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the entries that name files."""
    return {key: value for key, value in document.items() if not key.startswith("per_")}


def sentences(document: dict[str, Any]) -> list[str]:
    """Return lines that say what was done, or what would be done."""
    model = document["model"]
    lines = [
        f"model {model['weights_sha256'][:12]}, {_whose(model)}"
        f"{model['stage']} round {model['server_round']}, "
        f"marks pixels of probability {model['threshold']:g} or more ({model['threshold_from']})"
    ]
    if document.get("dry_run"):
        lines.append(
            f"would try {document['to_predict']} of {document['offered']} images; "
            "none has been decoded yet, so some may prove unusable"
        )
    else:
        lines.append(
            f"{document['predicted']} predicted now; the folder holds {document['images']} in "
            f"{document['studies']} {'study' if document['studies'] == 1 else 'studies'}: "
            f"{document['with_lesions']} with marked regions, "
            f"{document['without_lesions']} without"
        )
    lines += [f"{document[key]} {words}" for key, words in ASIDES.items() if document.get(key)]
    lines += [f"{count} cannot be used: {why}" for why, count in document["rejected"].items()]
    missing = document.get("without_segmentation", {})
    lines += [f"{count} without a DICOM segmentation: {why}" for why, count in missing.items()]
    made = document.get("objects", {})
    if made.keys() - {"seg"}:
        lines.append("DICOM objects: " + ", ".join(f"{n} {kind}" for kind, n in made.items()))
    lines += [f"{n} without a {why}" for why, n in document.get("without_object", {}).items()]
    omitted = document.get("header_left_out", {})
    lines += [f"{count} segmentations without the source's {why}" for why, count in omitted.items()]
    lines += [f"check: {line}" for line in document.get("contradictions", ())]
    if document.get("side_unknown"):
        lines.append(f"{document['side_unknown']} of unknown side, shown as in the file")
    if sent := document.get("sent"):
        lines += sent_lines(sent)
    return [*lines, "research use only"]


def _whose(model: dict[str, Any]) -> str:
    return f"personal model of {model['personal_of']}, " if "personal_of" in model else ""


ASIDES = {
    "done_before": "predicted before and unchanged since",
    "outdated": "predicted before and redone: the table or file name has changed",
    "replaced": "predicted before but out of date: the file holds another image or is now rejected",
    "of_earlier_calls": "from earlier calls, not among the inputs of this one",
    "duplicates": "given twice",
    "contradicted": "given twice with differing rows or names: the first one counts",
    "own_files": "files of earlier predictions among the inputs were skipped",
}


def _lines(document: dict[str, Any]) -> list[str]:
    """Return one line per image with its result."""
    lines = [
        f"{printable(r['source'])}\t{len(r['lesions'])} marked\t{r['score']:.3f}\t{r['image']}"
        for r in document.get("per_image", ())
    ]
    return lines + [
        f"{printable(r['source'])}\t{r['reason']}: {printable(r['detail'])}"
        for r in document.get("per_rejected", ())
    ]
