"""``mamfed-server sites approve | list | revoke | rotate``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mamfed_common.runtime.terminal import Format, confirm, console
from mamfed_common.runtime.wording import counted
from mamfed_server.cli.options import SITES, Output

if TYPE_CHECKING:
    from mamfed_server.admission.registry import SiteEntry

WARN_DAYS = 30
RENEW_DAYS = 60

app = typer.Typer(
    no_args_is_help=True,
    help="Approve, list and revoke sites, and renew the server certificate.",
)

Home = Annotated[
    Path,
    typer.Option(help="The coordinator's home.", envvar="MAMFED_SERVER_HOME", file_okay=False),
]


@app.command()
def approve(
    request: Annotated[Path, typer.Argument(help="The request.json that the site sent.")],
    home: Home = Path("."),
    out: Annotated[
        Path | None,
        typer.Option(help="Welcome file to write.", show_default="HOME/NAME.welcome.json"),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Accept a known site's new key and revoke its old one."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm that you compared the fingerprint.")
    ] = False,
) -> None:
    """Approve a site or renew its certificate: check its request and write its welcome file.

    Compare the fingerprint with the site by phone. Use a number that did not come with the request.
    """
    from mamfed_common.runtime.output_checks import check_file
    from mamfed_common.security.enrolment import read_request, write_document
    from mamfed_server.admission import approval
    from mamfed_server.settings import ServerHome, check_is_home

    server_home = ServerHome(home)
    check_is_home(server_home)
    enrolment = read_request(request)
    kind = approval.consider(server_home, enrolment, replace=replace)
    target = out or home / f"{enrolment.site}.welcome.json"
    check_file(target, lambda head: b'"ca_certificate"' in head, "mamfed welcome file")
    console().print(f"site: {enrolment.site} ({kind})")
    console().print(f"contact: {enrolment.contact or 'none given'}")
    console().print(f"fingerprint: {enrolment.fingerprint()}")
    console().print(f"yours, to read to the site: {approval.own_fingerprint(server_home)}")
    confirm("Did the site read the same fingerprint to you over the phone?", yes=yes)
    welcome = approval.approve(server_home, enrolment, replace=replace)
    write_document(target, welcome)
    end = welcome.site_certificate().not_valid_after_utc
    typer.echo(f"{enrolment.site}: approved, certificate valid until {end:%Y-%m-%d}")
    typer.echo(f"{target}: send it to the site, which runs: mamfed-client join {target.name}")


@app.command(name="list")
def list_(home: Home = Path("."), output: Output = Format.TEXT) -> None:
    """List the sites with their status, key and certificate expiry."""
    from mamfed_server.admission.registry import NO_SITES, load_sites
    from mamfed_server.settings import ServerHome, load_settings

    server_home = ServerHome(home)
    load_settings(server_home)
    rows = [_row(entry) for entry in load_sites(server_home).values()]
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
    _warn_of_expiry(
        [row for row in rows if row["status"] == "active" and row["days_left"] < WARN_DAYS]
    )


@app.command()
def revoke(
    site: Annotated[str, typer.Argument(help="The site's name.", autocompletion=SITES)],
    home: Home = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Revoke a site permanently. A running server refuses it within seconds."""
    from mamfed_server.admission import approval
    from mamfed_server.settings import ServerHome

    server_home = ServerHome(home)
    entry = approval.revocable(server_home, site)
    console().print(f"site: {entry.site}, approved {entry.approved_at:%Y-%m-%d}")
    console().print(f"contact: {entry.contact or 'none given'}")
    confirm(f"Revoke {entry.site}? It can return only with new keys.", yes=yes)
    approval.revoke(server_home, site)
    typer.echo(f"{entry.site}: revoked; it can return only with new keys")


@app.command()
def rotate(
    home: Home = Path("."),
    days: Annotated[
        int | None,
        typer.Option(
            help="Validity of the new certificate in days.",
            show_default="certificate_days in server.yaml",
            min=1,
        ),
    ] = None,
) -> None:
    """Issue a new server certificate for the hosts in server.yaml; list site certificates to renew.

    The authority and the keys stay the same. A running server uses the new certificate within
    seconds.
    """
    from mamfed_common.runtime.lock import home_lock
    from mamfed_server.admission.approval import own_fingerprint
    from mamfed_server.admission.certificate_authority import issue_server, load_server_certificate
    from mamfed_server.admission.registry import load_sites
    from mamfed_server.settings import ServerHome, load_settings

    server_home = ServerHome(home)
    settings = load_settings(server_home)
    with home_lock(home):
        issue_server(server_home, settings.hosts, days or settings.certificate_days)
    end = load_server_certificate(server_home).not_valid_after_utc
    typer.echo(f"server certificate for {', '.join(settings.hosts)}, valid until {end:%Y-%m-%d}")
    mark = own_fingerprint(server_home)
    typer.echo(f"fingerprint of address, authority and plan key: {mark}")
    rows = [_row(entry) for entry in load_sites(server_home).values() if entry.status == "active"]
    _warn_of_expiry([row for row in rows if row["days_left"] < RENEW_DAYS])


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


def _warn_of_expiry(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        when = (
            f"expires in {counted(row['days_left'], 'day')}"
            if row["days_left"] >= 0
            else "has expired"
        )
        console().print(
            f"warning: the certificate of {row['site']} {when}; ask the site to run: mamfed-client "
            "enroll",
        )
