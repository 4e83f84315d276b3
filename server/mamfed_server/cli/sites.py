"""The commands of ``mamfed-server sites``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamfed_common.runtime.terminal import Format, confirm, console
from mamfed_common.runtime.wording import counted

if TYPE_CHECKING:
    from mamfed_server.admission.registry import NO_SITES, SiteEntry

WARN_DAYS = 30
RENEW_DAYS = 60

app = typer.Typer(
    no_args_is_help=True,
    help="Approve the sites that may take part, list them, revoke one, renew certificates.",
)

Home = Annotated[
    Path,
    typer.Option(help="The coordinator's home.", envvar="MAMFED_SERVER_HOME", file_okay=False),
]
Printed = Annotated[Format, typer.Option("--format", help="For people, or for scripts.")]


@app.command()
def approve(
    request: Annotated[Path, typer.Argument(help="The request.json that a site sent.")],
    home: Home = Path("."),
    out: Annotated[
        Path | None, typer.Option(help="Welcome to write.", show_default="HOME/NAME.welcome.json")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take a new key of a known site; revoke its old one.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="The fingerprint was compared.")] = False,
) -> None:
    """Take a site in, or renew its certificate: check its request, write its welcome.

    Compare the fingerprint with the site by phone, by a number that did not come with the request.
    """
    from mamfed_common.runtime.files import check_file
    from mamfed_common.security.enrolment import read_request, write_document
    from mamfed_server.admission import approval
    from mamfed_server.settings import ServerHome

    place = ServerHome(home)
    asked = read_request(request)
    kind = approval.consider(place, asked, replace=replace)
    target = out or home / f"{asked.site}.welcome.json"
    check_file(target, lambda head: b'"ca_certificate"' in head, "welcome of mamfed's")
    console().print(f"site: {asked.site} ({kind})")
    console().print(f"contact: {asked.contact or 'none given'}")
    console().print(f"fingerprint: {asked.fingerprint()}")
    confirm("Did the site read the same fingerprint over the phone?", yes=yes)
    welcome = approval.approve(place, asked, replace=replace)
    write_document(target, welcome)
    end = welcome.site_certificate().not_valid_after_utc
    typer.echo(f"{asked.site}: approved, certificate valid until {end:%Y-%m-%d}")
    typer.echo(f"{target}: send it to the site, which runs: mamfed-client join {target.name}")


@app.command(name="list")
def list_(home: Home = Path("."), output: Printed = Format.TEXT) -> None:
    """List the sites: status, key, when the certificate ends."""
    from mamfed_server.admission.registry import load_sites
    from mamfed_server.settings import ServerHome, load_settings

    place = ServerHome(home)
    load_settings(place)
    rows = [_row(entry) for entry in load_sites(place).values()]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(NO_SITES)
    for row in rows:
        typer.echo(
            f"{row['site']}  {row['status']}  key {row['node_fingerprint'][:16]}  "
            f"certificate until {row['not_after'][:10]} ({counted(row['days_left'], 'day')})  "
            f"approved {row['approved_at'][:10]}"
        )
    _warn([row for row in rows if row["status"] == "active" and row["days_left"] < WARN_DAYS])


@app.command()
def revoke(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    home: Home = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Shut a site out for good. A running server refuses it within seconds."""
    from mamfed_server.admission import approval
    from mamfed_server.settings import ServerHome

    place = ServerHome(home)
    known = approval.revocable(place, site)
    console().print(f"site: {known.site}, approved {known.approved_at:%Y-%m-%d}")
    console().print(f"contact: {known.contact or 'none given'}")
    confirm(f"Shut {known.site} out? It can come back with new keys only.", yes=yes)
    entry = approval.revoke(place, site)
    typer.echo(f"{entry.site}: revoked; it can come back with new keys only")


@app.command()
def rotate(
    home: Home = Path("."),
    days: Annotated[
        int | None, typer.Option(help="How long it is valid.", show_default="server.yaml's", min=1)
    ] = None,
) -> None:
    """Give the server a new certificate for the hosts in server.yaml; name sites that end soon.

    The authority and the keys stay. A running server takes it within seconds.
    """
    from mamfed_common.runtime.lock import home_lock
    from mamfed_server.admission.certificate_authority import issue_server, load_server_certificate
    from mamfed_server.admission.registry import load_sites
    from mamfed_server.settings import ServerHome, load_settings

    place = ServerHome(home)
    settings = load_settings(place)
    with home_lock(home):
        issue_server(place, settings.hosts, days or settings.certificate_days)
    end = load_server_certificate(place).not_valid_after_utc
    typer.echo(f"server certificate for {', '.join(settings.hosts)}, valid until {end:%Y-%m-%d}")
    rows = [_row(entry) for entry in load_sites(place).values() if entry.status == "active"]
    _warn([row for row in rows if row["days_left"] < RENEW_DAYS])


def _row(entry: SiteEntry) -> dict[str, Any]:
    return {
        "site": entry.site,
        "status": entry.status,
        "node_fingerprint": entry.node_fingerprint,
        "not_after": entry.expiry().isoformat(),
        "days_left": (entry.expiry() - datetime.now(UTC)).days,
        "certificates": [c.model_dump(mode="json") for c in entry.certificates],
        "approved_at": entry.approved_at.isoformat(),
        "revoked_at": entry.revoked_at and entry.revoked_at.isoformat(),
        "contact": entry.contact,
    }


def _warn(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        when = (
            f"ends in {counted(row['days_left'], 'day')}"
            if row["days_left"] >= 0
            else "has expired"
        )
        console().print(
            f"warning: the certificate of {row['site']} {when}; ask the site for: mamfed-client "
            "enroll",
        )
