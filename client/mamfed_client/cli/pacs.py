"""The commands of ``mamfed-client pacs``: images from the archive, and results to it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamfed_client.cli.data import NOTHING_ACCEPTED
from mamfed_client.cli.options import Home, OutputFormat, checked_home
from mamfed_client.cli.pacs_words import plan_lines, result_lines, sent_lines
from mamfed_common.errors import LinkError
from mamfed_common.runtime.terminal import Format, console, reading_progress

if TYPE_CHECKING:  # `--help` must not load what the commands need
    from mamfed_client.archive.objects import Query
    from mamfed_client.archive.plan import PullPlan
    from mamfed_client.archive.pull import PullResult
    from mamfed_client.archive.send import SendResult

app = typer.Typer(
    no_args_is_help=True,
    help="The hospital's image archive (PACS): try the connection, pull mammograms, send results. "
    "site.yaml says where it is (archive).",
)

DAY: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "YYYY-MM-DD"}
By = Annotated[
    str | None,
    typer.Option(help="dicomweb or dimse.", show_default="the first of both that is set"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Ask and count only; fetch or send nothing.")
]


@app.command()
def check(home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """Try every way to the archive that site.yaml names; nothing is fetched or stored.

    One line for each: QIDO-RS by DICOMweb; C-ECHO, C-FIND and C-GET by DIMSE.

    Exit code 9 if site.yaml names no archive, 10 if a way does not work.
    """
    from mamfed_client.archive.connect import archive_settings, connect, ways

    settings = archive_settings(checked_home(home))
    works: list[str] = []
    fails: list[str] = []
    for way in ways(settings):
        archive = connect(settings, way)
        try:
            works += archive.check()
        except LinkError as error:
            fails.append(str(error))
        finally:
            archive.close()
    if output is Format.JSON:
        typer.echo(json.dumps({"works": works, "fails": fails}, indent=2))
    else:
        typer.echo("\n".join([f"ok: {line}" for line in works] + [f"fails: {f}" for f in fails]))
    if fails:
        raise typer.Exit(LinkError.exit_code)


@app.command()
def pull(
    out: Annotated[Path, typer.Option(help="Folder for the images; a second call goes on in it.")],
    home: Home = Path(),
    first: Annotated[
        datetime | None, typer.Option("--from", help="First study date.", **DAY)
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="Last study date.", **DAY)] = None,
    patient: Annotated[str, typer.Option(help="Only this Patient ID.")] = "",
    accession: Annotated[str, typer.Option(help="Only this accession number.")] = "",
    worklist: Annotated[
        Path | None,
        typer.Option(
            help="CSV table of the studies: accession, patient_id or study, and labels such as "
            "birads (docs/site.md)."
        ),
    ] = None,
    by: By = None,
    move: Annotated[
        bool,
        typer.Option(
            "--move",
            help="Let the archive send by C-MOVE: this site listens (archive.move) while it pulls.",
        ),
    ] = False,
    max_per_minute: Annotated[
        int | None,
        typer.Option(min=1, help="Most images a minute.", show_default="archive.max_per_minute"),
    ] = None,
    dry_run: DryRun = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Pull mammograms (modality MG) from the archive into a folder that data check reads.

    Files keep what the archive gave, so they identify patients: only you can read the folder, and
    its names are pseudonyms. Every image has one count. An interrupted call loses nothing: repeat
    it. Images are fetched within archive.hours only.

    mamfed-client pacs pull --out exports --from 2024-01-01 --to 2024-12-31 --dry-run

    mamfed-client pacs pull --out exports --worklist studies.csv

    Exit code 3 if no image is there, 10 if images are left for a second call.
    """
    from mamfed_client.archive.connect import archive_settings, connect
    from mamfed_client.archive.objects import Query
    from mamfed_client.archive.plan import make_plan
    from mamfed_client.archive.pull_folder import check_pull_folder
    from mamfed_client.archive.worklist import read_worklist
    from mamfed_client.preparation.pseudonyms import site_secret

    settings = archive_settings(checked_home(home))
    query = Query(*(day.strftime("%Y%m%d") if day else "" for day in (first, last)))
    query = _exact(query._replace(patient=patient, accession=accession), worklist)
    listed = read_worklist(worklist, query) if worklist is not None else None
    secret = site_secret()
    check_pull_folder(out, secret)
    archive = connect(settings, _way(by), move=move)
    try:
        with console().status("asking the archive") as bar:
            plan = make_plan(
                archive, query, listed, lambda n: bar.update(f"asking the archive: {n} studies")
            )
        if dry_run:
            _print(plan.to_json(), plan_lines(plan.to_json()), output)
            return
        if max_per_minute is not None:
            settings = settings.model_copy(update={"max_per_minute": max_per_minute})
        result, table = _pull(archive, plan, out, secret, settings, listed)
    finally:
        archive.close()
    _finish(plan, result, table, out, output)


def _pull(
    archive: Any, plan: PullPlan, out: Path, secret: bytes, settings: Any, listed: Any
) -> tuple[PullResult, str]:
    """Pull what is planned; return what came, and the name of the table of labels."""
    from mamfed_client.archive.pull import Puller, write_labels
    from mamfed_client.archive.pull_folder import open_pull_folder
    from mamfed_client.archive.throttle import Throttle
    from mamfed_client.sandbox.decoder import Decoder

    throttle = Throttle(
        settings.hours,
        settings.max_per_minute,
        settings.max_megabytes_per_minute,
        say=console().print,
    )
    with open_pull_folder(out, secret) as folder, Decoder() as decoder:
        with reading_progress("pulling", len(plan.images)) as advance:
            result = Puller(archive, folder, throttle, decoder).pull(plan, advance)
        columns = listed.columns if listed is not None else ()
        return result, write_labels(folder, plan, columns) if columns else ""


def _finish(plan: PullPlan, result: PullResult, table: str, out: Path, output: Format) -> None:
    """Print the counts and the next command; exit with the documented code."""
    document = {**plan.to_json(), **result.to_json(plan), "labels": table or None}
    _print(document, result_lines(document), output)
    if result.to_repeat():
        why = f"{result.stopped}; " if result.stopped else ""
        raise LinkError(
            f"{why}{result.to_repeat()} of {len(plan.images)} images are not here yet; nothing is "
            "lost, repeat the same command to go on"
        )
    if not document["outcomes"]["pulled"] + document["outcomes"]["before"]:
        raise typer.Exit(NOTHING_ACCEPTED)
    if output is Format.TEXT:
        typer.echo(f"next: mamfed-client data check {out}")


def _exact(query: Query, worklist: Path | None) -> Query:
    """Refuse wildcards, and options that contradict each other."""
    if set("*?\\") & set(query.patient + query.accession):
        raise typer.BadParameter("--patient and --accession take exact values, without * ? \\")
    if worklist is not None and (query.patient or query.accession):
        raise typer.BadParameter("--worklist names the patients; omit --patient and --accession")
    if query.first and query.last and query.first > query.last:
        raise typer.BadParameter("--from is later than --to")
    if worklist is None and not any(query):
        raise typer.BadParameter(
            "name what to pull: --from, --to, --patient, --accession or --worklist"
        )
    return query


def _way(by: str | None) -> Any:
    from mamfed_client.archive.connect import Way

    if by is not None and by not in list(Way):
        raise typer.BadParameter(f"--by {by}: expected dicomweb or dimse")
    return Way(by) if by else None


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(help="A folder that mamfed-client predict made.")],
    home: Home = Path(),
    by: By = None,
    dry_run: DryRun = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Send the DICOM objects of predictions to the archive, by STOW-RS or C-STORE.

    An object counts as sent when the archive confirms it; a second call sends only the others.

    Exit code 10 if an object was refused or is left for a second call.
    """
    result = send_results(folder, home, by, dry_run=dry_run)
    if result is None:
        return
    if output is Format.JSON:
        typer.echo(json.dumps(result.to_json(), indent=2))
    else:
        typer.echo("\n".join(sent_lines(result.to_json())))
    raise_unsent(result)


def check_archive(home: Path) -> None:
    """Refuse, before any work, a home that names no archive.

    Raises:
        SetupError: It names none, or is no site's home.
    """
    from mamfed_client.archive.connect import archive_settings

    archive_settings(checked_home(home))


def send_results(
    folder: Path, home: Path, by: str | None, *, dry_run: bool = False
) -> SendResult | None:
    """Send a folder's DICOM objects; with ``dry_run``, print what would be sent, return None.

    Raises:
        DataError: The folder holds no predictions.
        SetupError: The site names no archive.
    """
    from mamfed_client.archive.connect import archive_settings, connect, describe
    from mamfed_client.archive.send import count_unsent, send_files
    from mamfed_client.prediction.folder import dicom_files, is_predictions
    from mamfed_client.preparation.prepared_folder import alone
    from mamfed_common.errors import DataError

    settings, way = archive_settings(checked_home(home)), _way(by)
    if not is_predictions(folder):
        raise DataError(f"{folder}: no folder of mamfed-client predict; name its --out")
    files, where = dicom_files(folder), describe(settings, way)
    if dry_run:
        unsent = count_unsent(where, folder, files)
        typer.echo(f"would send {unsent} of {len(files)} DICOM objects; the others are confirmed")
        return None
    archive = connect(settings, way)
    try:
        with alone(folder), reading_progress("sending", len(files)) as advance:
            return send_files(archive, where, folder, files, advance)
    finally:
        archive.close()


def raise_unsent(result: SendResult) -> None:
    """Raise LinkError if an object was not sent."""
    left = result.not_reached + len(result.refused)
    if left:
        why = f"{result.stopped}; " if result.stopped else ""
        raise LinkError(
            f"{why}{left} of {result.objects} DICOM objects were not sent; mamfed-client pacs send "
            "sends those that are missing"
        )


def _print(document: dict[str, Any], lines: list[str], output: Format) -> None:
    typer.echo(json.dumps(document, indent=2) if output is Format.JSON else "\n".join(lines))
