"""Commands of ``mamfed-client data``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamfed_client.cli.data_words import print_facts, print_intake
from mamfed_client.cli.options import (
    Allow,
    Classes,
    Folder,
    ForecastOnly,
    Home,
    KeyFile,
    Layout,
    Listed,
    MaskValues,
    OutputFormat,
    checked_home,
)
from mamfed_client.imaging.rejections import Reason
from mamfed_common.errors import DoubtError
from mamfed_common.runtime.terminal import Format, confirm, console
from mamfed_common.runtime.wording import counted

if TYPE_CHECKING:  # `--help` must not load what reads images
    from mamfed_client.preparation.commands import Source
    from mamfed_client.preparation.ingest import Intake

NOTHING_ACCEPTED = 3
"""Exit code if no file can be used."""

app = typer.Typer(
    no_args_is_help=True,
    help="Check a folder of mammograms, prepare it for training, and view prepared images.",
)

CheckPage = Annotated[
    Path | None,
    typer.Option("--html", help="Write an HTML page with histograms and a contact sheet."),
]
LabelTable = Annotated[
    Path | None, typer.Option(help="Write a labels.csv to fill in, if the folder has none.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Ignore the results of earlier checks.")]

PreparedFolder = Annotated[
    Path, typer.Option(help="Prepared folder to write, for use in place of the original.")
]
Size = Annotated[int, typer.Option(min=32, help="Side of the samples in pixels.")]
NewKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="Encrypt the samples (AES-256-GCM) with this key file, created if absent; keep it "
        "safe.",
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Also read and compare files that look unchanged.")
]
AcceptDoubts = Annotated[
    bool,
    typer.Option("--accept-doubts", help="Use doubtful masks, which are otherwise rejected."),
]


@app.command()
def check(
    folder: Folder,
    layout: Layout = None,
    allow: Allow = None,
    classes: Classes = None,
    mask_values: MaskValues = None,
    html: CheckPage = None,
    table: LabelTable = None,
    listed: Listed = False,
    fresh: Fresh = False,
    dry_run: ForecastOnly = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Read every file without changing it, and report what each stage could use.

    Only counts are shown: no patient and, without --list, no file name. The exit code is 3 if no
    file can be used. An interrupted check resumes where it stopped.
    """
    from mamfed_client.preparation.commands import check
    from mamfed_client.preparation.label_template import check_free
    from mamfed_client.review.page import check_place, write_check_page

    if html is not None:
        check_place(html)
    if table is not None:
        check_free(table)
    source = _source(folder, layout, allow, classes, mask_values)
    intake, document = check(source, fresh=fresh, dry_run=dry_run)
    if intake is not None and html is not None:
        write_check_page(html, document, intake, folder=folder, names=listed)
        document |= {"page": str(html)}
    if intake is not None and table is not None:
        document |= {"table": str(table), "table_rows": _write_table(table, intake)}
    print_intake(intake, document, listed, output)
    _finish(intake, document)


@app.command()
def prepare(
    folder: Folder,
    out: PreparedFolder,
    size: Size = 1536,
    layout: Layout = None,
    allow: Allow = None,
    classes: Classes = None,
    mask_values: MaskValues = None,
    key: NewKey = None,
    verify: Verify = False,
    accept_doubts: AcceptDoubts = False,
    listed: Listed = False,
    dry_run: ForecastOnly = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Crop, orient and rescale every usable image into a folder that training reads from.

    You can stop the command at any time and resume with the same command. On later runs, new files
    are added and files that are gone are removed. Patients keep their part of the split.
    """
    from mamfed_client.preparation.commands import prepare_folder

    intake, document = prepare_folder(
        _source(folder, layout, allow, classes, mask_values),
        out,
        size=size,
        key_path=key,
        verify=verify,
        accept_doubts=accept_doubts,
        dry_run=dry_run,
    )
    print_intake(intake, document, listed, output)
    _refuse_doubtful_masks(out, document)
    _finish(intake, document)


@app.command()
def describe(
    out: Annotated[Path, typer.Option(help="JSON file to write, for the coordinator.")],
    home: Home = Path("."),
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Plan that is to come: count each part too, as it divides the patients. A table "
            "that says each patient's part needs none."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The content may leave; do not ask.")] = False,
) -> None:
    """Write this site's data in signed counts, before there is a plan, for you to send by hand.

    All of the content is shown first. Figures over fewer than policy.min_patients_to_report
    patients stay here; the audit log records what you agree to send.

    mamfed-client data describe --out north.survey.json
    """
    from mamfed_client.disclosure.survey import describe_site, lines_of, release_survey
    from mamfed_client.site.settings import load_site_settings
    from mamfed_common.plan import read_plan
    from mamfed_common.runtime.output_checks import check_file
    from mamfed_common.security.survey import is_survey

    site_home = checked_home(home)
    check_file(out, is_survey, "survey")
    settings = load_site_settings(site_home)
    survey = describe_site(settings, None if plan is None else read_plan(plan))
    for line in lines_of(survey):
        typer.echo(line)
    confirm("May this leave your site, as a file that you send to the coordinator?", yes=yes)
    release_survey(site_home, settings, survey, out)
    typer.echo(f"survey: {out}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A prepared folder.")],
    row: Annotated[
        int, typer.Argument(help="Row of the table, or position in a listing without a table.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="PNG file to write.", show_default="row-ROW.png or row-ROW-sample.png"),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Write the sample alone: greyscale, 16 bits.")
    ] = False,
    key: KeyFile = None,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Write one prepared image as PNG: the sample, its outlines and its mask.

    No file other than an earlier picture of this command is overwritten.
    """
    from mamfed_client.review.show import panels, sample_alone, show_row

    draw = sample_alone if sample else panels
    facts = show_row(folder, row, out, draw, key_path=key)
    print_facts(facts, output)


def _source(
    folder: Path,
    layout: str | None,
    allow: list[Reason] | None,
    classes: list[str] | None,
    mask_values: list[str] | None,
) -> Source:
    from mamfed_client.annotations.classes import MalignantClasses
    from mamfed_client.preparation.commands import Source

    malignant = MalignantClasses(tuple(classes or ()), tuple(mask_values or ()))
    return Source(folder, layout, frozenset(allow or ()), malignant)


def _write_table(table: Path, intake: Intake) -> int:
    """Write the table to fill in; return its number of rows."""
    from mamfed_client.preparation.label_template import write_blank_table

    written, unnameable = write_blank_table(table, intake)
    if unnameable:
        files = counted(unnameable, "file is", "files are")
        console().print(f"{files} not in the table, which cannot hold such names; rename them")
    return written


def _refuse_doubtful_masks(out: Path, document: Mapping[str, Any]) -> None:
    """Raise an error if doubtful masks were rejected."""
    doubtful = document.get("rejected", {}).get(Reason.DOUBTFUL_MASK, 0)
    if doubtful:
        masks = counted(doubtful, "doubtful mask was", "doubtful masks were")
        raise DoubtError(
            f"{out}: {masks} rejected; review the page of 'data check --html', then set "
            "reviewed: yes in labels.csv, correct the masks, or use --accept-doubts"
        )


def _finish(intake: Intake | None, document: Mapping[str, Any]) -> None:
    """Exit with code 3 if nothing was accepted."""
    if intake is None:
        return
    if not document["accepted"]:
        raise typer.Exit(NOTHING_ACCEPTED)
    if document["layout"] == "dicom":
        console().print(
            "no table says what the images show; 'data check --table labels.csv' writes one to "
            "fill in"
        )
