"""``mamfed-server survey``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime.terminal import Format
from mamfed_server.cli.options import Home, Output

Files = Annotated[
    list[Path], typer.Argument(help="Surveys that sites wrote with mamfed-client data describe.")
]
Page = Annotated[Path | None, typer.Option("--html", help="HTML page to write.")]
Requests = Annotated[
    list[Path] | None,
    typer.Option("--request", help="Request of a site that is not approved yet; may be repeated."),
]


def survey(
    files: Files,
    home: Home = Path("."),
    request: Requests = None,
    html: Page = None,
    output: Output = Format.TEXT,
) -> None:
    """Say from the sites' surveys whether they can train together, before there is a plan.

    Each survey must carry the signature of an approved site, or of the request that you name. A
    survey that is damaged, altered, unknown or a site's second one is refused with exit code 9.

    mamfed-server survey north.survey.json south.survey.json --html survey.html
    """
    from mamfed_common.runtime.output_checks import check_file, is_page
    from mamfed_server.admission.survey_files import known_keys, read_surveys
    from mamfed_server.report.survey import judge, write_page
    from mamfed_server.settings import ServerHome

    if html is not None:
        check_file(html, is_page, "mamfed page")
    surveys = read_surveys(files, known_keys(ServerHome(home), request or ()))
    statements = judge(surveys)
    if html is not None:
        write_page(surveys, html)
    if output is Format.JSON:
        document = {
            "statements": [statement._asdict() for statement in statements],
            "surveys": [each.model_dump(mode="json", exclude={"signature"}) for each in surveys],
            "page": None if html is None else str(html),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for statement in statements:
        typer.echo(f"{statement.level}: {statement.text}")
    if html is not None:
        typer.echo(f"page: {html}")
