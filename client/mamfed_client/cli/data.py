"""The commands of ``mamfed-client data``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.rejections import Reason
from mamfed_common.errors import DoubtError
from mamfed_common.runtime.terminal import Format, console, print_lines
from mamfed_common.runtime.wording import counted

NOTHING_ACCEPTED = 3
"""Exit code where not one file can be used."""

app = typer.Typer(
    no_args_is_help=True,
    help="Look at a folder of mammograms, prepare it for training, look at what came out.",
)

Folder = Annotated[
    Path,
    typer.Argument(help="A data set, or any folder with DICOM files below it.", exists=True),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="How the folder is laid out: labels, inbreast, cbis-ddsm, vindr-mammo, cdd-cesm, "
        "mini-mias or dicom.",
        show_default="found out",
    ),
]
Allow = Annotated[
    list[Reason] | None,
    typer.Option(
        help="A reason for which files are not refused, e.g. 'secondary capture'; may be repeated.",
        metavar="REASON",
        show_choices=False,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        help="A class of annotations that is malignant, as the file names it; may be repeated.",
        metavar="NAME",
    ),
]
MaskValues = Annotated[
    list[str] | None,
    typer.Option(
        help="A value of mask pixels that is malignant, as 2 or '#ff0000'; may be repeated.",
        metavar="VALUE",
    ),
]
Printed = Annotated[Format, typer.Option("--format", help="How to print the result.")]
Listed = Annotated[
    bool,
    typer.Option("--list", help="Name every file and what became of it; stays on your screen."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; open no image.")]
Key = Annotated[
    Path | None,
    typer.Option(
        help="Key file: encrypts the samples (AES-256-GCM). Made if absent: keep it safe."
    ),
]


WRITTEN = ("page", "table", "picture")
"""What a command may have written, by the key that says where."""


@app.command()
def check(
    folder: Folder,
    layout: Layout = None,
    allow: Allow = None,
    classes: Classes = None,
    mask_values: MaskValues = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with histograms and a contact sheet.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write a labels.csv to fill in, for a folder without one.")
    ] = None,
    listed: Listed = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an earlier check saw.")
    ] = False,
    dry_run: DryRun = False,
    output: Printed = Format.TEXT,
) -> None:
    """Read every file, change nothing, and say what each stage could use.

    Counts alone are shown: no patient and, without --list, no file name. Ends with exit code 3
    where no file can be used. An interrupted check goes on where it was.
    """
    from mamfed_client.annotations.classes import MalignantClasses
    from mamfed_client.preparation.commands import Source, check
    from mamfed_client.preparation.label_template import check_free, write_blank_table
    from mamfed_client.review.page import check_place, write_check_page

    if html is not None:
        check_place(html)
    if table is not None:
        check_free(table)
    take = MalignantClasses(tuple(classes or ()), tuple(mask_values or ()))
    source = Source(folder, layout, frozenset(allow or ()), take)
    intake, document = check(source, fresh=fresh, dry_run=dry_run)
    if intake is not None and html is not None:
        write_check_page(html, document, intake, folder=folder, names=listed)
        document |= {"page": str(html)}
    if intake is not None and table is not None:
        left_out = write_blank_table(table, intake)
        document |= {"table": str(table)}
        if left_out:
            names = counted(left_out, "file has a name", "files have names")
            console().print(f"{names} that a table cannot hold; rename them")
    _show(intake, document, listed, output)
    _finish(intake, document)


@app.command()
def prepare(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder for the samples: train with it from then on.")],
    size: Annotated[int, typer.Option(min=32, help="Side of the samples in pixels.")] = 1536,
    layout: Layout = None,
    allow: Allow = None,
    classes: Classes = None,
    mask_values: MaskValues = None,
    key: Key = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and compare files again that look unchanged.")
    ] = False,
    accept_doubts: Annotated[
        bool,
        typer.Option(
            "--accept-doubts", help="Use doubtful masks, too; without it they are left out."
        ),
    ] = False,
    listed: Listed = False,
    dry_run: DryRun = False,
    output: Printed = Format.TEXT,
) -> None:
    """Crop, orient and rescale every usable image into a folder that training reads from.

    It may be stopped at any time: the same command goes on from there. New files are added, files
    that are gone are forgotten. Patients keep their part of the split.
    """
    from mamfed_client.annotations.classes import MalignantClasses
    from mamfed_client.preparation.commands import Source, prepare_folder

    take = MalignantClasses(tuple(classes or ()), tuple(mask_values or ()))
    source = Source(folder, layout, frozenset(allow or ()), take)
    intake, document = prepare_folder(
        source,
        out,
        size=size,
        key_path=key,
        verify=verify,
        accept_doubts=accept_doubts,
        dry_run=dry_run,
    )
    _show(intake, document, listed, output)
    left_out = document.get("rejected", {}).get(Reason.DOUBTFUL_MASK, 0)
    if left_out:
        masks = "1 doubtful mask was" if left_out == 1 else f"{left_out} doubtful masks were"
        raise DoubtError(
            f"{out}: {masks} left out; look at the page of 'check --html', then say reviewed: yes "
            "in labels.csv, mend them, or give --accept-doubts"
        )
    _finish(intake, document)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A prepared folder.")],
    row: Annotated[int, typer.Argument(help="Row of the table, or place in the listing.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture to write.", show_default="row-ROW.png or row-ROW-sample.png"),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="The sample alone, as it is: grey, 16 bits.")
    ] = False,
    key: Annotated[Path | None, typer.Option(help="Key file of an encrypted folder.")] = None,
    output: Printed = Format.TEXT,
) -> None:
    """Write one prepared image as PNG: the sample, its outlines, its mask; over no other file."""
    from mamfed_client.review.show import panels, sample_alone, show_row

    draw = sample_alone if sample else panels
    facts = show_row(folder, row, out, draw, key_path=key)
    if output is Format.JSON:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print_table({k: v for k, v in facts.items() if k not in WRITTEN})
        _say_written(facts)


def _say_written(document: Mapping[str, Any]) -> None:
    """Say where files were written, each on a line that can be copied."""
    for name in WRITTEN:
        if name in document:
            typer.echo(f"{name}: {document[name]}")


def _show(intake: Any, document: dict[str, Any], listed: bool, output: Format) -> None:
    """Print the result."""
    if intake is not None and listed:
        from mamfed_client.preparation.summary import list_items

        document = document | {"items": list_items(intake)}
    if output is Format.JSON:
        typer.echo(json.dumps(document, indent=2))
    else:
        apart = ("items", "doubts", "notes", *WRITTEN)
        _print_table({k: v for k, v in document.items() if k not in apart})
        for item in document.get("items", []):
            reason = f"{item['reason']}: {item['detail']}" if item["reason"] else "accepted"
            reason = "; doubtful: ".join([reason, *item["doubts"]])
            typer.echo(f"{item['row']}\t{printable(item['file'])}\t{printable(reason)}")
        _print_doubts(document)
        _say_written(document)
    print_lines(document.get("notes", []))


def _finish(intake: Any, document: Mapping[str, Any]) -> None:
    """End with exit code 3 where nothing was accepted."""
    if intake is None:
        return
    if not document["accepted"]:
        raise typer.Exit(NOTHING_ACCEPTED)
    if document["layout"] == "dicom":
        console().print("no table says what the images show: see 'check --table labels.csv'")


def _print_doubts(document: Mapping[str, Any]) -> None:
    """End with what a person should look at, in plain words."""
    counts = document.get("doubts")
    if not counts:
        return
    images = document["doubtful_images"]
    typer.echo(f"\n{images} {'image is' if images == 1 else 'images are'} doubtful; look at them:")
    for kind, count in counts.items():
        typer.echo(f"{count:>6}  {Doubt(kind).sentence}")


def printable(text: str) -> str:
    """Escape what would break the line or speak to the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _print_table(document: Mapping[str, Any]) -> None:
    """Print names and values; counts by something one below the other."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in document.items():
        rows = list(value.items()) if isinstance(value, dict) else [("", value)]
        for position, (key, count) in enumerate(rows or [("", "none")]):
            shown = Text("unknown" if count is None else str(count))
            table.add_row("" if position else name.replace("_", " "), Text(str(key)), shown)
    Console(highlight=False).print(table)
