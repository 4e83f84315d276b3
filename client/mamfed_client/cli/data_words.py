"""What ``mamfed-client data`` prints: counts, files, doubts and where the results are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from mamfed_client.imaging.doubts import Doubt
from mamfed_common.runtime.terminal import Format, print_lines
from mamfed_common.runtime.wording import counted, printable

if TYPE_CHECKING:  # `--help` must not load what reads images
    from mamfed_client.preparation.ingest import Intake

WRITTEN = ("page", "table", "picture")
"""Keys under which a document names the files that the command wrote."""


def print_intake(
    intake: Intake | None, document: dict[str, Any], listed: bool, output: Format
) -> None:
    """Print the result of reading a folder; with ``listed``, also what became of each file."""
    if intake is not None and listed:
        from mamfed_client.preparation.summary import list_items

        document = document | {"items": list_items(intake)}
    if output is Format.JSON:
        typer.echo(json.dumps(document, indent=2))
    else:
        separate = ("items", "doubts", "notes", *WRITTEN)
        _print_table({k: v for k, v in document.items() if k not in separate})
        for item in document.get("items", []):
            reason = f"{item['reason']}: {item['detail']}" if item["reason"] else "accepted"
            reason = "; doubtful: ".join([reason, *item["doubts"]])
            typer.echo(f"{item['row']}\t{printable(item['file'])}\t{printable(reason)}")
        _print_doubts(document)
        _print_written(document)
    print_lines(document.get("notes", []))


def print_facts(facts: Mapping[str, Any], output: Format) -> None:
    """Print what is known of one image, and where its picture is."""
    if output is Format.JSON:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print_table({k: v for k, v in facts.items() if k not in WRITTEN})
        _print_written(facts)


def _print_written(document: Mapping[str, Any]) -> None:
    """Print the paths of written files, one per line so that they can be copied."""
    for name in WRITTEN:
        if name in document:
            typer.echo(f"{name}: {document[name]}")


def _print_doubts(document: Mapping[str, Any]) -> None:
    """Print the doubtful images by kind of doubt, in plain words."""
    counts = document.get("doubts")
    if not counts:
        return
    images = document["doubtful_images"]
    typer.echo(f"\n{counted(images, 'image is', 'images are')} doubtful; please review:")
    for kind, count in counts.items():
        typer.echo(f"{count:>6}  {Doubt(kind).sentence}")


def _print_table(document: Mapping[str, Any]) -> None:
    """Print names and values; the entries of a mapping are listed below each other."""
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
