"""``mamfed-server export``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_server.cli.options import RUNS, Home, Output

if TYPE_CHECKING:
    from mamfed_server.export.request import Request


class ExportChoice(StrEnum):
    """The export formats; ``run`` copies the run's own files."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    MONAI_BUNDLE = "monai-bundle"
    SAFETENSORS = "safetensors"
    MAP = "map"
    RUN = "run"


RunOrCheckpoint = Annotated[
    str,
    typer.Argument(
        help="A run's folder or name, or a checkpoint (*.safetensors).", autocompletion=RUNS
    ),
]
To = Annotated[ExportChoice, typer.Option("--to", help="Export format.")]
Out = Annotated[Path | None, typer.Option(help="Output folder.", show_default="RUN/export/FORMAT")]
CheckpointName = Annotated[str, typer.Option(help="Checkpoint of the run: best, final or latest.")]
NormGroup = Annotated[
    str | None,
    typer.Option(
        help="Norm group to export, if the run has norm groups; 'average' exports the mean."
    ),
]
ImageFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of prepared images (8- or 16-bit PNG) for the comparison."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and list the files, but write none.")
]


def export(
    run: RunOrCheckpoint,
    to: To = ExportChoice.RUN,
    out: Out = None,
    home: Home = Path("."),
    checkpoint: CheckpointName = "best",
    norms: NormGroup = None,
    images: ImageFolder = None,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
) -> None:
    """Export a run's network for other tools, or copy the run's results to a separate folder.

    Each export is loaded back and compared with PyTorch. If it differs by more than 1e-4, nothing
    is written and the exit code is 8. Every export includes a model card. --to run copies the
    verified weights, the plan, the rounds and the summary; of a single site, these contain only
    its name and its counts.

    Examples:
        mamfed-server export runs/first --to onnx --images prepared/

        mamfed-server export best.safetensors --to monai-bundle --out ~/bundle
    """
    from mamfed_server.export.source import read_source
    from mamfed_server.run.run_choice import find_run

    path = Path(run) if Path(run).is_file() else find_run(run, home / "runs")
    if to is ExportChoice.RUN:
        _copy(path, checkpoint, out, dry_run, output)
        return
    from mamfed_server.export.checks import read_images
    from mamfed_server.export.request import ExportTarget, Request

    root = path if path.is_dir() else path.parent
    request = Request(
        read_source(path, checkpoint, norms),
        ExportTarget(to.value),
        out or root / "export" / to.value,
        read_images(images) if images else None,
    )
    _export(request, dry_run, output)


def _export(request: Request, dry_run: bool, output: Format) -> None:
    from mamfed_server.export.exporting import check_request
    from mamfed_server.export.exporting import export as write

    check_request(request)
    replaces = request.out.is_dir() and any(request.out.iterdir())
    record: dict[str, object] = {}
    if not dry_run:
        with terminal.console().status("") as spinner:
            record = write(request, lambda step: spinner.update(f"{request.target}: {step}"))
    files = [str(path) for path in request.files]
    if output is Format.JSON:
        typer.echo(json.dumps({**record, "written": not dry_run, "files": files}, indent=2))
        return
    for name in files:
        typer.echo(f"would write {name}" if dry_run else name)
    if replaces:
        typer.echo("the folder already held this export, which the new one replaces")
    if record:
        typer.echo(
            f"largest difference from PyTorch: {record['largest_difference']:.1e} in double "
            f"precision, {record['largest_difference_from_float32']:.1e} in float32 "
            f"(limit: {record['tolerance']:.0e})"
        )
        typer.echo(f"compared on {_compared_on(record)}; research use only")


def _compared_on(record: dict[str, object]) -> str:
    count = f"{record['images']} " if record["images"] else ""
    shapes = record["shapes"]
    assert isinstance(shapes, list)
    sizes = ", ".join(dict.fromkeys(" x ".join(map(str, shape[2:])) for shape in shapes))
    return f"{count}{record['compared_on']}, at {sizes}"


def _copy(path: Path, checkpoint: str, out: Path | None, dry_run: bool, output: Format) -> None:
    from mamfed_common.errors import RunError
    from mamfed_server.run.overview import export_run

    if path.is_file():
        raise RunError(f"{path}: found a checkpoint, expected a run; choose a format with --to")
    if out is None:
        raise typer.BadParameter("copying a run needs an output folder", param_hint="--out")
    if dry_run:
        typer.echo(f"would copy {path} to {out}")
        return
    files = [str(file) for file in export_run(path, checkpoint, out)]
    if output is Format.JSON:
        document = {"run": path.name, "checkpoint": checkpoint, "files": files}
        files = [json.dumps(document, indent=2)]
    for line in files:
        typer.echo(line)
